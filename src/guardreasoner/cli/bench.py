"""`guardreasoner bench`: latency, throughput, tokens and memory per query; beside the same weights under `hf` if asked.

Every contestant runs in a process of its own, one after the other, on the same exchanges with the same threads, so that
the peak of memory is its own.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from guardreasoner.cli.options import add_guard, guard_options
from guardreasoner.cli.tables import print_json, show, table_of
from guardreasoner.engines.base import Engine
from guardreasoner.errors import ConfigError, EngineError, printable
from guardreasoner.evaluate.speed import as_row, measure, peak_memory_mb
from guardreasoner.guards.load import load_guard
from guardreasoner.records import read_jsonl
from guardreasoner.types import MODES, Exchange
from guardreasoner.yaml_files import in_package

AGAINST = ("float32", "bfloat16")
COLUMNS = (
    ("p50 ms", "p50_ms", "{:.1f}"),
    ("p95 ms", "p95_ms", "{:.1f}"),
    ("p50 ≤60 tok", "short_p50_ms", "{:.1f}"),
    ("CPU ms", "cpu_ms", "{:.1f}"),
    ("batch q/s", "per_second", "{:.1f}"),
    ("batch CPU ms", "batch_cpu_ms", "{:.1f}"),
    ("tokens", "tokens", "{:.0f}"),
    ("peak MB", "memory_mb", "{:.0f}"),
    ("judged", "ok", "{}"),
)


def add(parser: argparse.ArgumentParser) -> None:
    add_guard(parser)
    parser.add_argument("--modes", metavar="LIST", help="modes to measure, by commas (default all that it has)")
    parser.add_argument("--file", type=Path, metavar="FILE.jsonl", help="exchanges (default: the bundled small set)")
    parser.add_argument("--limit", type=int, default=64, metavar="N", help="exchanges (default 64)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="exchanges judged together (default 32)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of every contestant that runs here")
    parser.add_argument(
        "--against", metavar="CHECKPOINT", help="the same weights as a transformers folder: run under hf, fp32 and bf16"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per contestant and mode")


def run(args: argparse.Namespace) -> int:
    rows = _alone(args) if args.against is None else _contest(args)
    if args.json:
        print_json(rows)
    else:
        _show(rows)
    return 0


def _alone(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one guard in this process."""
    exchanges = _exchanges(args.file, args.limit)
    options = guard_options(args) | ({"threads": args.threads} if args.threads else {})
    begun = time.perf_counter()
    guard: Any = load_guard(args.guard, **options)
    load_s = time.perf_counter() - begun
    name = f"{guard.name} {args.engine or ''} {options.get('dtype', '')}".strip()
    with guard:
        speeds = []
        for mode in _modes(args.modes, guard):
            judge = partial(guard.judge, mode=mode) if _takes_mode(guard) else guard.judge
            speeds.append(measure(judge, exchanges, mode=mode, batch=args.batch))
    memory = peak_memory_mb()
    return [as_row(name, speed, memory_mb=memory, load_s=load_s) for speed in speeds]


def _contest(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the guard and its checkpoint under hf, each in a process of its own."""
    common = ["--limit", str(args.limit), "--batch", str(args.batch), "--json"]
    common += ["--modes", args.modes] if args.modes else []
    common += ["--file", str(args.file)] if args.file else []
    common += ["--threads", str(args.threads)] if args.threads else []
    first = ["--guard", args.guard, *(a for item in args.option for a in ("--option", item))]
    for flag in ("engine", "model", "base_url", "calibration"):
        value = getattr(args, flag)
        first += [f"--{flag.replace('_', '-')}", str(value)] if value else []
    rows = _child([*first, *common])
    for dtype in AGAINST:
        rows += _child(["--guard", args.against, "--engine", "hf", "--option", f"dtype={dtype}", *common])
    return rows


def _child(arguments: Sequence[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "guardreasoner", "bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = printable(done.stderr.strip().rsplit("\n", 1)[-1], 300)
        raise EngineError(f"a contestant failed: {reason.removeprefix('guardreasoner: ')}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _exchanges(file: Path | None, limit: int) -> list[Exchange]:
    rows = [row for _, row in islice(read_jsonl(file or in_package("data/smoke.jsonl")), limit)]
    return [Exchange(str(r.get("id", i)), str(r.get("prompt") or ""), r.get("response")) for i, r in enumerate(rows)]


def _modes(asked: str | None, guard: Any) -> list[str]:
    if not _takes_mode(guard):
        return ["full"]
    engine = getattr(guard, "engine", None)
    able: tuple[str, ...] = MODES
    if isinstance(engine, Engine):
        able = MODES if engine.capabilities.force else ("full",)
    elif engine is not None:  # it scores a text, and writes none
        able = ("instant",)
    wanted = [m.strip() for m in asked.split(",")] if asked else list(able)
    if unknown := set(wanted) - set(able):
        raise ConfigError(f"this guard has no mode {', '.join(sorted(unknown))}; it has {', '.join(able)}")
    return wanted


def _takes_mode(guard: Any) -> bool:
    return "mode" in inspect.signature(guard.judge).parameters


def _show(rows: Sequence[dict[str, Any]]) -> None:
    """One table; × = how many times the first contestant's cost in that mode, by wall clock and by CPU time."""
    firsts = {row["mode"]: row for row in reversed(rows) if row["guard"] == rows[0]["guard"]}
    heads = ("guard", "mode", *(c[0] for c in COLUMNS), "×", "CPU ×", "batch ×", "batch CPU ×")
    table = table_of(*heads, words=2, folds=heads[2:])
    for row in rows:
        first = firsts[row["mode"]]
        cells = ["-" if row[key] is None else form.format(row[key]) for _, key, form in COLUMNS]
        times = [row[key] / first[key] for key in ("p50_ms", "cpu_ms")]
        times += [first["per_second"] / row["per_second"], row["batch_cpu_ms"] / first["batch_cpu_ms"]]
        table.add_row(printable(row["guard"]), row["mode"], *cells, *(f"{t:.2f}" for t in times))
    size = f"{rows[0]['n']} exchanges one by one, then in batches of {rows[0]['batch']}"
    show(table, f"{size}; × = times the first one's cost in the same mode")
