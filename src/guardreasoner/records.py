"""Nouns to JSON lines and back; files that are never half-written; run folders that resume.

A run folder belongs to one configuration and one process at a time. A stage appends finished rows to a `.jsonl` file
and, when it is done, writes `manifest.json`: what it was asked, what it read, what it made, what it dropped and why.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import time
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from importlib import metadata
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from guardreasoner.errors import ConfigError, DataError, RunFolderError
from guardreasoner.types import (
    Example,
    Exchange,
    Labels,
    Message,
    Preference,
    Review,
    Score,
    Step,
    Task,
    Trace,
    Usage,
    Verdict,
)

T = TypeVar("T")

_NESTED: dict[type[Any], dict[str, Any]] = {
    Exchange: {"context": lambda v: tuple(Message(**m) for m in v)},
    Example: {"exchange": lambda v: from_dict(Exchange, v), "gold": lambda v: Labels(**v)},
    Trace: {"example": lambda v: from_dict(Example, v)},
    Verdict: {
        "labels": lambda v: Labels(**v),
        "steps": lambda v: tuple(Step(Task(s["task"]) if s["task"] else None, s["text"]) for s in v),
        "usage": lambda v: Usage(**v),
    },
    Preference: {"task": Task},
    Score: {"task": Task, "ci": lambda v: tuple(v) if v is not None else None},
    Review: {"labels": lambda v: Labels(**v)},
}


def to_dict(noun: Any) -> dict[str, Any]:
    """A noun as plain JSON values."""
    return asdict(noun)


def from_dict(kind: type[T], row: Mapping[str, Any]) -> T:
    """A noun from plain JSON values. Unknown fields are ignored, so that files of later versions can be read.

    Raises:
        DataError: a field is missing or cannot have the value it has.
    """
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    nested = _NESTED.get(kind, {})
    try:
        return kind(**{k: nested[k](row[k]) if k in nested else row[k] for k in known if k in row})
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        missing = [n for n in known if n not in row]
        detail = (
            str(error)
            if isinstance(error, ValueError)
            else f"it lacks or garbles a field (absent: {', '.join(missing) or 'none'})"
        )
        raise DataError(f"not a {kind.__name__}: {detail}") from None


def dumps(value: Any) -> str:
    """One line of JSON: nouns, enums, paths and sets allowed; lone surrogates escaped; NaN refused."""
    return _ENCODER.encode(value).encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


_ENCODER = json.JSONEncoder(default=_plain, ensure_ascii=False, allow_nan=False)


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of each line of a JSONL file; empty lines are skipped.

    Raises:
        DataError: the file cannot be read, a line is not UTF-8, not JSON, or not an object.
    """
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, parse_line(line, file=str(path), line=number)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=str(path)) from None


def parse_line(content: bytes, *, file: str, line: int) -> dict[str, Any]:
    """The object that one line of JSON holds; a byte order mark before it is skipped.

    Raises:
        DataError: the line is not UTF-8, not JSON, or not an object.
    """
    value = parse_json(content, file=file, line=line)
    if not isinstance(value, dict):
        raise DataError(f"a JSON {type(value).__name__} where an object is wanted", file=file, line=line)
    return value


@dataclass(frozen=True, slots=True)
class HugeNumber:
    """A JSON number that a float or an int of Python cannot hold, as it was written: 1e999, or 5,000 digits."""

    text: str


def parse_json(content: bytes, *, file: str, line: int | None = None) -> Any:
    """The value that UTF-8 bytes of JSON hold; numbers beyond Python's own as `HugeNumber`.

    Raises:
        DataError: the bytes are not UTF-8, or not JSON.
    """
    try:
        return _DECODER.decode(content.removeprefix(BOM_UTF8).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; save the file as UTF-8", file=file, line=line) from None
    except RecursionError:
        raise DataError("not JSON (nested too deeply)", file=file, line=line) from None
    except json.JSONDecodeError as error:
        at = error.lineno if line is None else line
        raise DataError(f"not JSON ({error.msg} at column {error.colno})", file=file, line=at) from None


def _float(text: str) -> float | HugeNumber:
    value = float(text)
    return value if isfinite(value) else HugeNumber(text)


def _int(text: str) -> int | HugeNumber:
    return int(text) if len(text) <= _LONGEST_INT else HugeNumber(text)


_LONGEST_INT = 4000
"""Digits; Python refuses to read more than 4,300, against attacks by arithmetic."""
_DECODER = json.JSONDecoder(parse_float=_float, parse_int=_int)


def read_nouns(kind: type[T], path: str | Path) -> Iterator[T]:
    """The nouns of a JSONL file, with file and line in every error."""
    for number, row in read_jsonl(path):
        try:
            yield from_dict(kind, row)
        except DataError as error:
            raise DataError(error.message, file=str(path), line=number) from None


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a whole file or nothing: to a temporary file beside it, flushed, then renamed."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write a whole JSONL file atomically; returns the number of rows."""
    lines = [dumps(row) for row in rows]
    write_atomic(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def sha256(path: str | Path) -> str:
    """Hex digest of a file, or of the names and digests of a folder's files."""
    root = Path(path)
    if root.is_dir():
        files = sorted(p for p in root.rglob("*") if p.is_file())
        listing = "".join(f"{p.relative_to(root)} {sha256(p)}\n" for p in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    with open(root, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Appender:
    """Appends rows to a JSONL file that survives a kill: whole lines only, and a torn last line is cut off on opening.

    Use as a context manager; `existing` holds the rows that were already there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            _cut_torn_line(self.path)
        self.existing: list[dict[str, Any]] = [row for _, row in read_jsonl(self.path)] if self.path.exists() else []
        self._stream: IO[bytes] = open(self.path, "ab")  # noqa: SIM115 - closed by __exit__

    def append(self, row: Any) -> None:
        """Write one row and hand it to the operating system."""
        self._stream.write(dumps(row).encode() + b"\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


def _cut_torn_line(path: Path) -> None:
    with open(path, "rb+") as stream:
        size = stream.seek(0, os.SEEK_END)
        keep, step = size, 1 << 16
        while keep > 0:
            start = max(0, keep - step)
            stream.seek(start)
            chunk = stream.read(keep - start)
            found = chunk.rfind(b"\n")
            if found >= 0:
                keep = start + found + 1
                break
            keep = start
        if keep < size:
            stream.truncate(keep)


@dataclass
class Counts:
    """How many rows came in, went out and were dropped, by reason: `in = out + sum(dropped)`."""

    in_: int = 0
    out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str, rows: int = 1) -> None:
        """Count rows that came in and do not go out."""
        self.dropped[reason] += rows

    def as_dict(self) -> dict[str, Any]:
        """The manifest's `counts`.

        Raises:
            ValueError: rows are unaccounted for.
        """
        if self.in_ != self.out + sum(self.dropped.values()):
            raise ValueError(f"counts do not add up: {self.in_} in, {self.out} out, {dict(self.dropped)} dropped")
        return {"in": self.in_, "out": self.out, "dropped": dict(sorted(self.dropped.items()))}


def apart(out: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuse to write over, or into a folder that holds, what is to be read; links are followed.

    Raises:
        ConfigError: an input is `out`, or lies in it.
    """
    target = Path(out).resolve()
    for given in inputs:
        source = Path(given).resolve()
        same = source.exists() and target.exists() and source.samefile(target)
        if same or source == target or target in source.parents:
            what = "is its own output" if same or source == target else f"lies in the output {out}"
            raise ConfigError(f"{given} {what}, which would overwrite it; give another output")


class RunFolder:
    """One stage's folder `DIR/<stage>`: locked to one process, bound to one configuration, resumable.

    Raises on opening:
        RunFolderError: another process holds it, it was made with another configuration (the key is named), or
            `fresh` would empty a folder that no run made.
        ConfigError: an input lies in the folder, and would be overwritten.
    """

    def __init__(
        self,
        out: str | Path,
        stage: str,
        *,
        config: Mapping[str, Any],
        inputs: Sequence[str | Path] = (),
        fresh: bool = False,
        resumable_keys: Sequence[str] = (),
        processes: int = 1,
    ) -> None:
        """Args:
        out: the run.
        stage: the folder in it.
        config: all that decides what the stage makes.
        inputs: files and folders that it reads; their content is compared, under names that a moved run keeps.
        fresh: throw away what the folder holds.
        resumable_keys: keys of `config` that may change between a run and its resumption.
        processes: how many work on the stage.
        """
        self.path = Path(out) / stage
        self.stage = stage
        apart(self.path, inputs)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._acquire()
        try:
            if fresh:
                self._empty()
            self.config = json.loads(dumps(dict(config)))
            self.inputs = {name: sha256(p) for name, p in input_names(inputs, Path(out)).items()}
            self._claim(set(resumable_keys))
            self._sit(processes)
        except BaseException:
            self.close()
            raise
        self.started = self._state()["started"]

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a finished stage, or None."""
        path = self.path / "manifest.json"
        return json.loads(path.read_text()) if path.exists() else None

    def finish(self, counts: Counts | Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Write the manifest; from now on the stage is done. `seconds` are those of all its sittings."""
        self.tick()
        manifest = {
            "stage": self.stage,
            "config": self.config,
            "inputs": self.inputs,
            "versions": versions(),
            "counts": counts.as_dict() if isinstance(counts, Counts) else dict(counts),
            "started": self.started,
            "finished": now(),
            "seconds": round(sum(s["seconds"] for s in self._sittings), 3),
            **({"sittings": len(self._sittings)} if len(self._sittings) > 1 else {}),
            **more,
        }
        write_atomic(self.path / "manifest.json", json.dumps(json.loads(dumps(manifest)), indent=2) + "\n")
        return manifest

    def tick(self, **facts: float) -> None:
        """Note that the stage is at work: what a kill leaves counts as far as the last tick.

        Args:
            facts: numbers of this sitting to keep, such as `peak_memory_bytes`.
        """
        self._sittings[-1] |= {"seconds": round(time.monotonic() - self._clock, 3), **facts}
        write_atomic(self.path / "run.json", json.dumps({**self._state(), "sittings": self._sittings}, indent=2) + "\n")

    @property
    def device_hours(self) -> float:
        """Hours of all sittings, each times its processes, as far as the last tick."""
        return float(round(sum(s["seconds"] * s["processes"] for s in self._sittings) / 3600, 4))

    def most(self, fact: str) -> float:
        """The highest value of a fact over all sittings."""
        return float(max((s[fact] for s in self._sittings if fact in s), default=0))

    def _sit(self, processes: int) -> None:
        self._clock = time.monotonic()
        self._sittings: list[dict[str, Any]] = self._state().get("sittings", [])
        if self.manifest is None:
            self._sittings.append({"started": now(), "seconds": 0.0, "processes": processes})
            self.tick()

    def log(self, **values: Any) -> None:
        """Append one line to `log.jsonl`."""
        with open(self.path / "log.jsonl", "a", encoding="utf-8") as stream:
            stream.write(dumps({"at": now(), **values}) + "\n")

    def close(self) -> None:
        """Let another process have the folder."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _acquire(self) -> IO[str]:
        try:
            import fcntl  # here, so that judging and reading work without it
        except ModuleNotFoundError:
            raise RunFolderError("run folders need the file locks of Linux or macOS; on Windows, work in WSL") from None
        stream = open(self.path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 - held until close
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            raise RunFolderError(
                f"{self.path} is in use by another process; wait for it, or give another --out"
            ) from None
        return stream

    def _empty(self) -> None:
        import shutil

        entries = [entry for entry in self.path.iterdir() if entry.name != ".lock"]
        if entries and not (self.path / "run.json").exists():
            raise RunFolderError(
                f"{self.path} holds files that no run made, so --fresh leaves them; give another --out"
            )
        for entry in entries:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def _state(self) -> dict[str, Any]:
        return json.loads((self.path / "run.json").read_text())  # type: ignore[no-any-return]

    def _claim(self, resumable: set[str]) -> None:
        if not (self.path / "run.json").exists():
            state = {"config": self.config, "inputs": self.inputs, "started": now()}
            write_atomic(self.path / "run.json", json.dumps(state, indent=2) + "\n")
            return
        before = self._state()
        known = {_moved(name, self.inputs): digest for name, digest in before["inputs"].items()}
        for kind, old, new in (("config key", before["config"], self.config), ("input", known, self.inputs)):
            for key in sorted(old.keys() | new.keys()):
                if old.get(key) != new.get(key) and key not in resumable:
                    raise RunFolderError(
                        f"{self.path} was made with another {kind} {key!r} "
                        f"({old.get(key)!r} there, {new.get(key)!r} now); give another --out, or --fresh to start over"
                    )


def input_names(inputs: Sequence[str | Path], out: Path) -> dict[str, Path]:
    """Names of inputs that stay the same when a run is copied, moved or named by another path.

    Below the run: the path inside it. Elsewhere: the file's name, with as many of its folders as tell it from others.
    """
    root, named = out.resolve(), {}
    paths = [Path(p).resolve() for p in inputs]
    for path in dict.fromkeys(paths):
        if path.is_relative_to(root):
            named[path.relative_to(root).as_posix()] = path
            continue
        for length in range(1, len(path.parts) + 1):
            tail = path.parts[-length:]
            if not any(other != path and other.parts[-length:] == tail for other in paths):
                break
        named["/".join(tail)] = path
    return named


def _moved(name: str, names: Mapping[str, str]) -> str:
    """What an input of an earlier version, named by its whole path, is called now."""
    if not name.startswith("/"):
        return name
    return max((new for new in names if name.endswith(f"/{new}")), key=len, default=name)


def now() -> str:
    """The time as ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide results, where installed."""
    found = {"python": platform.python_version()}
    for name in (
        "guardreasoner",
        "onnxruntime",
        "torch",
        "transformers",
        "trl",
        "peft",
        "accelerate",
        "vllm",
        "openai",
    ):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
