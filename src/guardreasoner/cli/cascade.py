"""`guardreasoner cascade FIRST SECOND`: what two guards in a row would score, replayed from two finished runs."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from guardreasoner.cli.options import add_data
from guardreasoner.cli.show_scores import NAMES
from guardreasoner.cli.tables import print_json, show, table_of
from guardreasoner.evaluate.cascades import CascadeCurve, cascade_curves
from guardreasoner.evaluate.contestants import contestants
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.records import dumps, write_atomic
from guardreasoner.report.figures import cascades


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "first", type=Path, metavar="FIRST", help="run of the guard that judges everything; needs scores"
    )
    parser.add_argument("second", type=Path, metavar="SECOND", help="run of the guard that the rest is passed to")
    add_data(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write cascade.json and cascade.svg")
    parser.add_argument("--json", action="store_true", help="one JSON object per task instead of tables")


def run(args: argparse.Namespace) -> int:
    first, second = contestants([open_run(args.first, args.data), open_run(args.second, args.data)])
    curves = cascade_curves(first, second)
    if args.out:
        write_atomic(args.out / "cascade.json", dumps([asdict(c) for c in curves]) + "\n")
        write_atomic(args.out / "cascade.svg", cascades(curves))
    if args.json:
        print_json(map(asdict, curves))
    else:
        show(*map(_table, curves))
    return 0


def _table(curve: CascadeCurve) -> Table:
    cells = ", ".join(curve.cells)
    title = f"{NAMES[curve.task]}: {curve.first}, then {curve.second}, on {curve.rows:,} rows of {cells}"
    heads = ("goes on", "rows", "F1", "95% interval", "at random", "band of the first score")
    table = table_of(*heads, words=0, title=title)
    for p in curve.points:
        interval = f"{p.f1.low:.1f} to {p.f1.high:.1f}"
        band = "none" if not p.escalated else f"{p.band[0]:.3f} to {p.band[1]:.3f}"
        table.add_row(f"{p.share:.0%}", f"{p.escalated:,}", f"{p.f1.value:.2f}", interval, f"{p.at_random:.2f}", band)
    return table
