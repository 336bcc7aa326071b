"""`guardreasoner guards`: every guard that is known by name, what it needs, and whether it can run here now."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter

from rich.markup import escape
from rich.table import Table

from guardreasoner.cli.tables import show
from guardreasoner.errors import UnknownName
from guardreasoner.guards.base import GuardRow
from guardreasoner.guards.load import rows
from guardreasoner.guards.others.readiness import describe, missing
from guardreasoner.types import TASKS

Checked = list[tuple[GuardRow, list[str]]]
"""Rows, each with what it lacks."""
LETTERS = dict(zip(TASKS, "PFR", strict=True))


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="guards or families, with everything known about them")
    parser.add_argument("--all", action="store_true", help="a line for every guard, with what it needs")
    parser.add_argument("--ready", action="store_true", help="a line for each that can run here now")
    parser.add_argument("--json", action="store_true", help="one JSON object per guard")


def run(args: argparse.Namespace) -> int:
    known = rows()
    asked: list[GuardRow] = [] if args.names else list(known.values())
    for name in args.names:
        kin = [row for row in known.values() if name == row.name or (name not in known and name == family_of(row.name))]
        if not kin:
            raise UnknownName("guard", name, {*known, *map(family_of, known)})
        asked += kin
    checked = [(row, missing(row)) for row in asked]
    if args.ready:
        checked = [(row, lacks) for row, lacks in checked if not lacks]
    if args.json:
        for row, lacks in checked:
            print(json.dumps(describe(row, lacks), ensure_ascii=False))
    elif args.names:
        for row, lacks in checked:
            _show(row, lacks)
    elif args.all or args.ready:
        _table(checked)
    else:
        _families(checked)
    return 0


def family_of(name: str) -> str:
    """What a guard's relatives have in common: the first word of their names, without its size."""
    return re.split(r"[-0-9]", name, maxsplit=1)[0]


def _families(checked: Checked) -> None:
    """What runs here now, a line each; then the others by family."""
    families: dict[str, list[str]] = {}
    for row, lacks in checked:
        if lacks:
            families.setdefault(family_of(row.name), []).append(row.name)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("[bold]here now[/]", "")
    for row, lacks in checked:
        if not lacks:
            table.add_row(row.name, row.note or "")
    table.add_row("[bold]others[/]", "")
    for family, names in families.items():
        if len(names) > 1:
            table.add_row(family, " ".join(names))
    table.add_row("more", " ".join(names[0] for names in families.values() if len(names) == 1))
    show(table)
    print(f"\n{len(checked)} guards. `guardreasoner guards NAME` says what one needs; --all has a line for each.")


def _table(checked: Checked) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("guard", no_wrap=True)
    for head in ("tasks", "bytes", "here now"):
        table.add_column(head, overflow="fold")
    for row, lacks in checked:
        tasks = "".join(letter if task in row.tasks else "-" for task, letter in LETTERS.items())
        sure = "" if row.confirmed else "unconfirmed"
        table.add_row(row.name, tasks, sure, escape(f"no: {'; '.join(lacks)}") if lacks else "yes")
    show(table)
    ready = sum(not lacks for _, lacks in checked)
    print(
        f"\n{len(checked)} guards, {ready} can run here now. Tasks: P request harm, F refusal, R response harm. "
        "Bytes: whether the prompt was compared with its owner's. `guardreasoner guards NAME` says more."
    )


def _show(row: GuardRow, lacks: list[str]) -> None:
    facts = describe(row, lacks)
    facts["options"] = [f"{key}={value!r}" for key, value in facts["options"].items()]
    facts["policy"] = "one of your own is followed: --policy-text FILE" if facts["policy"] else ""
    facts["gated"] = "accept its licence on the hub, then set HF_TOKEN" if facts["gated"] else ""
    facts["bytes"] = "" if row.confirmed else "the prompt could not be compared with its owner's"
    places = Counter(text.partition(" sha256 ")[0] for text in facts["texts"])
    facts["texts"] = [f"{place} ({count}, checked by sha256)" for place, count in places.items()]
    facts["here now"] = f"no: {'; '.join(facts.pop('missing'))}" if lacks else "yes"
    for key, value in facts.items():
        if value and key not in ("ready", "missing"):
            print(f"{key:<9} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    print()
