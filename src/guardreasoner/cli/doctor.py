"""`guardreasoner doctor`: what is installed, what is missing, and what to do about it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from rich.table import Table
from rich.text import Text

from guardreasoner.cli.tables import show
from guardreasoner.guards.ours import MICRO_FOLDER, MINI_FOLDER, NANO_FOLDER
from guardreasoner.yaml_files import packaged

PURPOSES, KEYS = packaged("cli/doctor.yaml").values()
DATA = "GUARDREASONER_DATA"


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
        show(table)
    return 1 if any(f.needed and not f.ok for f in findings) else 0


def examine() -> Iterator[Finding]:
    """Everything that decides what can run here; secrets are only ever reported as set or not."""
    yield Finding("machine", True, False, f"Python {platform.python_version()}, {os.cpu_count()} cores, {_memory()}")
    for folder in (NANO_FOLDER, MICRO_FOLDER, MINI_FOLDER):
        there = (folder / "guard.json").exists()
        yield Finding(folder.name, there, True, "bundled weights" if there else "reinstall guardreasoner")
    yield from (_extra(extra, packages) for extra, packages in extras().items())
    yield _gpu()
    for key, purpose in KEYS.items():
        yield Finding(key, key in os.environ, False, "set" if key in os.environ else f"not set; for {purpose}")
    yield _data()


def extras() -> dict[str, list[str]]:
    """Extra -> the packages it brings, as the installed package says; "" = what every install needs."""
    found: dict[str, list[str]] = {}
    for line in requires("guardreasoner") or []:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        foreign = "sys_platform" in line and "win32" in line and sys.platform == "win32"
        if name and not foreign:
            found.setdefault(extra[1] if extra else "", []).append(name[0])
    return {extra: packages for extra, packages in found.items() if extra != "dev"}


def _extra(extra: str, packages: list[str]) -> Finding:
    missing = [package for package in packages if not _installed(package)]
    purpose = PURPOSES.get(extra, "")
    if not missing:
        return Finding(extra or "base", True, not extra, purpose)
    how = f"pip install 'guardreasoner[{extra}]'" if extra else "reinstall guardreasoner"
    return Finding(extra or "base", False, not extra, f"{purpose}: {how} (lacks {', '.join(missing)})")


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _gpu() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("GPU", False, False, "torch is not installed, so none was looked for")
    if torch.cuda.is_available():
        return Finding("GPU", True, False, f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    return Finding("GPU", False, False, "none; nano runs on the CPU, larger guards are slow there")


def _data() -> Finding:
    value = os.environ.get(DATA)
    if value is None:
        why = "not set; the official benchmark files are then looked for in --data DIR, or on the hub (extra data)"
        return Finding(DATA, False, False, why)
    good = (Path(value) / "benchmarks").exists()
    return Finding(DATA, good, False, "found" if good else "set, but there is no benchmarks/ in it")


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB memory"
    except (ValueError, OSError):
        return "memory unknown"
