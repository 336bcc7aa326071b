"""Prompt texts of other guards, read from where their owners publish them and checked by digest.

This package carries no third-party policy text. If a model ships a chat template, that is used. Otherwise (WildGuard,
Aegis Guard 1.0, MD-Judge, HarmBench, PolyGuard, NemoGuard, ShieldGemma's four policies) a `Frame` says where the text
is published and what its SHA-256 is, with the holes written `{prompt}` and `{response}`:

    Frame(sha256="…", pieces=(("<|user|>", "<|assistant|>\\n"),), places=(Place("package", "wildguard", …),))

A text with another digest is refused, whatever its source; one that matches is cached under its digest.
"""

from __future__ import annotations

import ast
import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from guardreasoner.errors import ConfigError
from guardreasoner.records import write_atomic

TIMEOUT_S = 30
GITHUB = "https://raw.githubusercontent.com"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text is published."""

    kind: Literal["package", "hub", "github"]
    name: str
    """Distribution, hub repository or GitHub repository."""
    version: str
    """Version or full commit; `main` where no commit is known, the digest then pins alone."""
    file: str
    """Path inside it."""

    def __str__(self) -> str:
        joint = "==" if self.kind == "package" else "@"
        return f"{self.kind} {self.name}{joint}{self.version} {self.file}"


@dataclass(frozen=True, slots=True)
class Frame:
    """A template by digest."""

    sha256: str
    """Of the template, holes as `{prompt}` and `{response}`, UTF-8."""
    pieces: tuple[str | tuple[str, str], ...]
    """What it is made of, in order: a text of its own, or (first characters, last characters) of a stretch to read."""
    places: tuple[Place, ...]
    holes: Mapping[str, str] = field(default_factory=dict)
    """The owner's way of writing a hole -> ours; `%s` twice is filled in order."""


def digest(text: str) -> str:
    """SHA-256 of a template."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_frame(frame: Frame, *, what: str) -> str:
    """The template behind a frame.

    Args:
        what: its owner's name, for the message.
    """
    kept = cache_folder() / f"{frame.sha256}.txt"
    with suppress(OSError, UnicodeDecodeError):
        text = kept.read_bytes().decode()
        if digest(text) == frame.sha256:
            return text
    reasons = []
    for place in frame.places:
        try:
            source = read_place(place)
        except (OSError, ValueError, metadata.PackageNotFoundError) as error:
            reasons.append(f"{place} cannot be read here ({_why(place, error)})")
            continue
        text = find(frame, source) or ""
        if text:
            write_atomic(kept, text)
            return text
        reasons.append(f"the text of {place} is not the pinned one (sha256 {frame.sha256[:12]}…) and is refused")
    raise ConfigError(f"the prompt text of {what} is not at hand: {'; '.join(reasons)}; see docs/guards.md, `frame`")


def at_hand(frame: Frame) -> bool:
    """Whether a frame can be read without a network."""
    if (cache_folder() / f"{frame.sha256}.txt").is_file():
        return True
    for place in frame.places:
        if place.kind == "package":
            with suppress(OSError, ValueError, metadata.PackageNotFoundError):
                if find(frame, read_place(place)):
                    return True
    return False


def cache_folder() -> Path:
    """Where texts are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guardreasoner" / "frames"


def read_place(place: Place) -> str:
    """The file at a place; a package's files are read as text, never imported.

    Raises:
        OSError, ValueError, PackageNotFoundError: it cannot be read.
    """
    if place.kind == "package":
        found = metadata.distribution(place.name)
        if found.version != place.version:
            raise ValueError(f"version {found.version} is installed")
        return Path(str(found.locate_file(place.file))).read_text(encoding="utf-8")
    if place.kind == "hub":
        return _from_hub(place)
    url = f"{GITHUB}/{place.name}/{place.version}/{place.file}"
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        return str(answer.read().decode("utf-8"))


def _from_hub(place: Place) -> str:
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError:
        raise ValueError("huggingface_hub is not installed; pip install 'guardreasoner[hf]'") from None
    try:
        path = huggingface_hub.hf_hub_download(place.name, place.file, revision=place.version)
    except HfHubHTTPError as error:
        raise OSError(f"the hub refused: {type(error).__name__}") from None
    return Path(path).read_text(encoding="utf-8")


def _why(place: Place, error: Exception) -> str:
    if isinstance(error, metadata.PackageNotFoundError):
        return f"pip install --no-deps {place.name}=={place.version}"
    if isinstance(error, ValueError):
        return str(error)
    return "no network, or access not granted" if place.kind != "package" else type(error).__name__


def find(frame: Frame, source: str) -> str | None:
    """The frame's template in a file's text, or None where none has its digest."""
    for text in _readings(source):
        built = _build(frame.pieces, text)
        if built is not None and digest(_rename(built, frame.holes)) == frame.sha256:
            return _rename(built, frame.holes)
    return None


def _readings(source: str) -> Iterator[str]:
    """The file itself and, for Python, each string constant in it."""
    yield source
    with suppress(SyntaxError, ValueError, RecursionError):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 20:
                yield node.value


def _build(pieces: Sequence[str | tuple[str, str]], text: str) -> str | None:
    built = ""
    for piece in pieces:
        if isinstance(piece, str):
            built += piece
            continue
        start = text.find(piece[0])
        end = text.find(piece[1], start + len(piece[0])) if start >= 0 else -1
        if end < 0:
            return None
        built += text[start : end + len(piece[1])]
    return built


def _rename(text: str, holes: Mapping[str, str]) -> str:
    for theirs, ours in holes.items():
        for hole in ours.split():
            text = text.replace(theirs, hole, 1 if " " in ours else -1)
    return text
