"""`guardreasoner seeds`: the paper's seed training sets, and what each needs."""

from __future__ import annotations

import argparse
import json

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from guardreasoner.data.seeds import SEEDS


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object per set")


def run(args: argparse.Namespace) -> int:
    if args.json:
        for seed in SEEDS.values():
            source = seed.source
            row = {"seed": seed.name, "repo": source.repo, "config": source.config, "split": source.split,
                   "revision": source.revision, "gated": source.gated, "licence": source.licence,
                   "paper_samples": seed.paper_n, "paper_steps": seed.paper_steps, "used": seed.used,
                   "note": source.note}  # fmt: skip
            print(json.dumps(row))
        return 0
    table = Table(box=SIMPLE_HEAD, padding=0)
    for head in ("seed", "samples", "steps", "licence", "hub"):
        table.add_column(
            head, justify="right" if head in ("samples", "steps") else "left", no_wrap=head != "hub", overflow="fold"
        )
    for seed in SEEDS.values():
        table.add_row(seed.name, _count(seed.paper_n), _count(seed.paper_steps), seed.source.licence, seed.source.repo)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print("samples, steps: in the released GuardReasonerTrain (paper Table 1)")
    for seed in SEEDS.values():
        if seed.source.gated:
            console.print(f"{seed.name} is gated: accept the terms at {seed.source.page}, then set HF_TOKEN")
        if not seed.used:
            console.print(f"{seed.name} is listed by the paper and used by none of its recipes")
    return 0


def _count(n: int | None) -> str:
    return "–" if n is None else f"{n:,}"
