"""`guardreasoner seeds`: the paper's seed training sets, and what each needs."""

from __future__ import annotations

import argparse
from typing import Any

from guardreasoner.cli.tables import print_json, show, table_of
from guardreasoner.data.seeds import SEEDS, Seed


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object per set")


def run(args: argparse.Namespace) -> int:
    if args.json:
        print_json(map(_row, SEEDS.values()))
        return 0
    table = table_of("seed", "samples", "steps", "licence", "hub", last_words=2, folds=("hub",))
    for seed in SEEDS.values():
        table.add_row(seed.name, _count(seed.paper_n), _count(seed.paper_steps), seed.source.licence, seed.source.repo)
    gated = [f"{s.name} is gated: accept the terms at {s.source.page}, then set HF_TOKEN"
             for s in SEEDS.values() if s.source.gated]  # fmt: skip
    unused = [f"{s.name} is listed by the paper and used by none of its recipes" for s in SEEDS.values() if not s.used]
    show(table, "samples, steps: in the released GuardReasonerTrain (paper Table 1)", *gated, *unused, wrap=False)
    return 0


def _row(seed: Seed) -> dict[str, Any]:
    source = seed.source
    return {
        "seed": seed.name, "repo": source.repo, "config": source.config, "split": source.split,
        "revision": source.revision, "gated": source.gated, "licence": source.licence, "paper_samples": seed.paper_n,
        "paper_steps": seed.paper_steps, "used": seed.used, "note": source.note,
    }  # fmt: skip


def _count(n: int | None) -> str:
    return "–" if n is None else f"{n:,}"
