"""Whether a guard can run here now, and what it lacks, without using the network or loading anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from guardreasoner.guards.base import GuardRow
from guardreasoner.guards.others.fetch import Frame, at_hand

LIBRARIES: dict[str, tuple[tuple[str, ...], str]] = {
    "onnx": (("onnxruntime",), "onnx"),
    "hf": (("torch", "transformers", "safetensors"), "hf"),
    "classifier": (("torch", "transformers", "safetensors"), "hf"),
    "schema": (("torch", "transformers", "gliner2", "gliclass"), "encoders"),
    "vllm": (("vllm",), "vllm"),
    "openai": (("aiohttp",), "openai"),
    "anthropic": (("aiohttp",), "openai"),
    "moderation": (("aiohttp",), "openai"),
}
"""Engine -> the modules it needs, and the extra that brings them."""


def missing(row: GuardRow) -> list[str]:
    """What keeps a guard from running here now, each with what to do about it; empty = it can run."""
    if row.format in ("constant", "replay"):
        return []
    if row.format == "cascade":
        return [] if row.options else ["give --option first=, second= and bands="]
    lacks = [f"taken down on {row.retired}, now {row.current}: add --model {row.current}"] if row.retired else []
    lacks += _libraries(row)
    if row.key and not os.environ.get(row.key, "").strip():
        lacks.append(f"set {row.key}")
    if row.unreleased:
        lacks.append(f"weights: {row.unreleased}")
    elif not row.model:
        lacks.append("give --model")
    elif row.engine in ("onnx", "hf", "classifier", "schema", "vllm"):
        lacks += _weights(row)
    return lacks + list(_texts(row))


def _libraries(row: GuardRow) -> Iterator[str]:
    modules, extra = LIBRARIES.get(row.engine, ((), ""))
    if row.options.get("adapter"):
        modules = (*modules, "peft")
    if any(find_spec(module) is None for module in modules):
        yield f"pip install 'guardreasoner[{extra}]'" if extra != "onnx" else "pip install onnxruntime"


def _weights(row: GuardRow) -> Iterator[str]:
    wanted = [(row.model, row.revision), (row.options.get("adapter"), row.options.get("adapter_revision"))]
    for model, revision in wanted:
        if not model:
            continue
        if Path(model).is_absolute():
            if not any((Path(model) / name).is_file() for name in ("genai_config.json", "config.json")):
                yield f"no model in {model}"
            continue
        if revision is None:
            yield f"--revision: no commit of {model} is known"
        if not cached(model, revision):
            yield f"weights: download {model}" + (" (gated: accept its licence, set HF_TOKEN)" if row.gated else "")


def cached(model: str, revision: str | None) -> bool:
    """Whether a hub repository's weights are in the hub's own cache."""
    root = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or _home()) / "hub")
    snapshots = root / f"models--{model.replace('/', '--')}" / "snapshots"
    found = [snapshots / revision] if revision else list(snapshots.glob("*"))
    return any(any(folder.rglob("*.safetensors")) for folder in found if folder.is_dir())


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"


def _texts(row: GuardRow) -> Iterator[str]:
    """The prompt texts that are missing, by where they are published, each place once."""
    places = [f.places[0] for f in _frames(row.options) if f.places and not at_hand(f)]
    for place in dict.fromkeys(places):
        bring = f"pip install --no-deps {place.name}=={place.version}, or be online once"
        yield f"prompt text: {bring if place.kind == 'package' else f'be online once, it is in {place.name}'}"


def _frames(value: Any) -> Iterator[Frame]:
    if isinstance(value, Frame):
        yield value
    elif hasattr(value, "values"):
        for inner in value.values():
            yield from _frames(inner)


def describe(row: GuardRow, lacks: list[str]) -> dict[str, Any]:
    """A row as plain values, for people and programs."""
    plain = {k: v for k, v in row.options.items() if isinstance(v, str | int | float | bool) and len(str(v)) < 60}
    return {
        "name": row.name,
        "tasks": [t.value for t in row.tasks],
        "format": row.format,
        "engine": row.engine,
        "model": row.model,
        "revision": row.revision,
        "options": plain,
        "texts": [f"{f.places[0]} sha256 {f.sha256[:12]}" for f in _frames(row.options) if f.places],
        "policy": bool(row.options.get("policy_arg")),
        "key": row.key,
        "gated": row.gated,
        "licence": row.licence,
        "retired": row.retired,
        "current": row.current,
        "bytes": "confirmed" if row.confirmed else "unconfirmed",
        "note": row.note,
        "ready": not lacks,
        "missing": lacks,
    }
