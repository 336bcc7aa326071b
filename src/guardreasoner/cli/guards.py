"""`guardreasoner guards`: every guard that is known by name, what it needs, and whether it can run here now."""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.table import Table

from guardreasoner.errors import UnknownName
from guardreasoner.guards.base import GuardRow
from guardreasoner.guards.load import rows
from guardreasoner.guards.others.readiness import describe, missing
from guardreasoner.types import TASKS

LETTERS = dict(zip(TASKS, "PFR", strict=True))


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, with everything known about them")
    parser.add_argument("--ready", action="store_true", help="only those that can run here now")
    parser.add_argument("--json", action="store_true", help="one JSON object per guard")


def run(args: argparse.Namespace) -> int:
    known = rows()
    for name in args.names:
        if name not in known:
            raise UnknownName("guard", name, known)
    asked = [known[n] for n in args.names] or list(known.values())
    checked = [(row, missing(row)) for row in asked]
    if args.ready:
        checked = [(row, lacks) for row, lacks in checked if not lacks]
    if args.json:
        for row, lacks in checked:
            print(json.dumps(describe(row, lacks), ensure_ascii=False))
    elif args.names:
        for row, lacks in checked:
            _show(row, lacks)
    else:
        _table(checked)
    return 0


def _table(checked: list[tuple[GuardRow, list[str]]]) -> None:
    table = Table(box=None, pad_edge=False)
    for head in ("guard", "tasks", "engine", "weights or key", "bytes", "here now"):
        table.add_column(head, overflow="fold")
    for row, lacks in checked:
        tasks = "".join(letter if task in row.tasks else "-" for task, letter in LETTERS.items())
        needs = f"bundled, {row.licence}" if row.name == "nano" else row.key or row.model
        sure = "" if row.confirmed else "unconfirmed"
        table.add_row(row.name, tasks, row.engine, needs, sure, f"no: {'; '.join(lacks)}" if lacks else "yes")
    console = Console()
    console.print(table)
    ready = sum(not lacks for _, lacks in checked)
    console.print(
        f"\n{len(checked)} guards, {ready} can run here now. Tasks: P request harm, F refusal, R response harm. "
        "Bytes: whether the prompt was compared with its owner's. `guardreasoner guards NAME` says more.",
        highlight=False,
    )


def _show(row: GuardRow, lacks: list[str]) -> None:
    for key, value in describe(row, lacks).items():
        if value not in (None, "", [], {}):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            print(f"{key:<10} {shown}")
    print()
