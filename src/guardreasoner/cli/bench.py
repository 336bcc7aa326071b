"""`guardreasoner bench`: latency, throughput, tokens and memory per query, mode by mode."""

from __future__ import annotations

import argparse
import inspect
import time
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from guardreasoner.cli.options import add_guard, guard_options
from guardreasoner.cli.tables import print_json, show, table_of
from guardreasoner.engines.base import Engine
from guardreasoner.errors import ConfigError, printable
from guardreasoner.evaluate.speed import as_row, measure, peak_memory_mb
from guardreasoner.guards.load import load_guard
from guardreasoner.records import read_jsonl
from guardreasoner.types import MODES, Exchange
from guardreasoner.yaml_files import in_package

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
    parser.add_argument("--threads", type=int, metavar="N", help="threads of a guard that runs here")
    parser.add_argument("--json", action="store_true", help="one JSON object per mode")


def run(args: argparse.Namespace) -> int:
    rows = _measured(args)
    if args.json:
        print_json(rows)
    else:
        _show(rows)
    return 0


def _measured(args: argparse.Namespace) -> list[dict[str, Any]]:
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
    heads = ("guard", "mode", *(c[0] for c in COLUMNS))
    table = table_of(*heads, words=2, folds=heads[2:])
    for row in rows:
        cells = ["-" if row[key] is None else form.format(row[key]) for _, key, form in COLUMNS]
        table.add_row(printable(row["guard"]), row["mode"], *cells)
    show(table, f"{rows[0]['n']} exchanges one by one, then in batches of {rows[0]['batch']}")
