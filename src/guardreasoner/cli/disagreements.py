"""`guardreasoner disagreements RUN...`: rows whose labels deserve a second look, and what the second look changed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from guardreasoner.cli.options import add_data
from guardreasoner.cli.show_scores import NAMES, number
from guardreasoner.cli.tables import print_json, show, table_of
from guardreasoner.data.benchmarks import data_folder
from guardreasoner.errors import ConfigError, printable
from guardreasoner.evaluate.contestants import Contestant, contestants
from guardreasoner.evaluate.corrections import Agreement, agreements, latest, settle
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.review.corrected import Corrected, Flips, corrected_f1, flips
from guardreasoner.review.disagreements import ITEMS, SEALED, Contested, contested, draw, read_sealed, write_review
from guardreasoner.review.disputed import PATCH, patch_rows, read_disputed, write_disputed


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="finished runs over the same benchmarks")
    add_data(parser)
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="rows to list (default 20)")
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of tables")
    group = parser.add_argument_group("review")
    group.add_argument("--out", type=Path, metavar="DIR", help=f"write a review: {ITEMS} for reviewers, {SEALED} not")
    group.add_argument("--confident", type=int, default=10, metavar="N", help="per cell: most contested rows (10)")
    group.add_argument(
        "--doubtful", type=int, default=10, metavar="N", help="per cell: random other contested rows (10)"
    )
    group.add_argument(
        "--audit", type=int, default=20, metavar="N", help="per cell: random rows no guard contests (20)"
    )
    group.add_argument("--traces", type=Path, metavar="FILE", help="instead of runs: reasoning traces whose writer "
                       "disputes labels: the rows become a review, the writer's labels a patch")  # fmt: skip
    group.add_argument("--rows", type=Path, metavar="DIR", help="the training rows of --traces (default DATA/train)")
    group.add_argument("--patch", type=Path, metavar="DIR", help="with --traces or --rows and --reviews: a copy of the "
                       "rows with the reviewed labels in place")  # fmt: skip
    group.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    group.add_argument("--reviews", action="append", type=Path, metavar="FILE", help="Review records of the review "
                       "in --out: print corrected F1 instead; repeatable")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if args.traces or args.patch:
        return _disputed(args)
    if not args.runs:
        raise ConfigError("give finished runs, or --traces FILE with disputed labels")
    if args.reviews and not args.out:
        raise ConfigError("--reviews needs --out DIR, the folder of the review that they answer")
    entrants = contestants([open_run(folder, args.data) for folder in args.runs])
    if args.reviews:
        return _after(entrants, args)
    rows = contested(entrants)
    if args.out:
        drawn = draw(rows, confident=args.confident, doubtful=args.doubtful, agreeing=args.audit, seed=args.seed)
        items = write_review(drawn, args.out, seed=args.seed)
        print(f"{items} rows to review in {args.out / ITEMS}; keep {SEALED} from reviewers", file=sys.stderr)
    against = [r for r in rows if r.against][: args.limit]
    if args.json:
        print_json(map(_as_dict, against))
    else:
        show(_table(against, sum(bool(r.against) for r in rows), len(rows)))
    return 0


def _disputed(args: argparse.Namespace) -> int:
    data = data_folder(args.data)
    rows = args.rows or (data / "train" if data else None)
    if rows is None:
        raise ConfigError("the rows of the traces are needed: give --rows DIR, or --data DIR with train/")
    if args.runs:
        raise ConfigError("give runs or --traces, not both")
    if args.patch:
        if not args.reviews:
            raise ConfigError("--patch needs --reviews FILE, the labels to put in place")
        changed = patch_rows(rows, settle(latest(args.reviews)), args.patch)
        print(f"{changed:,} labels changed in {args.patch}", file=sys.stderr)
        return 0
    if not args.out:
        raise ConfigError("--traces needs --out DIR, the folder of the review")
    found = read_disputed(args.traces, rows)
    flips = write_disputed(found, args.out, seed=args.seed)
    print(f"{len(found):,} rows to review in {args.out / ITEMS}; keep {SEALED} and {PATCH} ({flips:,} flips) from "
          "reviewers", file=sys.stderr)  # fmt: skip
    return 0


def _as_dict(row: Contested) -> dict[str, object]:
    return {
        "id": row.case.id,
        "benchmark": row.benchmark,
        "task": row.task.value,
        "gold": row.case.gold[row.task],
        "against": list(row.against),
        "confidence": row.confidence,
        "reasoning": {
            label: "\n".join(s.text for s in v.steps if s.task in (row.task, None)) for label, v in row.verdicts
        },
    }


def _table(rows: Sequence[Contested], contested_rows: int, total: int) -> Table:
    title = f"{contested_rows:,} of {total:,} (row, task) pairs are contested; the most contested first"
    table = table_of("row", "task", "gold", "sure", "against", words=5, title=title, folds=("against",))
    for row in rows:
        table.add_row(
            escape(printable(row.case.id, 40)), NAMES[row.task.value], str(row.case.gold[row.task]),
            f"{row.confidence:.2f}", escape(printable(", ".join(row.against))),
        )  # fmt: skip
    return table


def _after(entrants: Sequence[Contestant], args: argparse.Namespace) -> int:
    reviews = latest(args.reviews)
    said, sealed = settle(reviews), read_sealed(args.out)
    found, changed = corrected_f1(entrants, sealed, said), flips(sealed, said)
    agreed = agreements(reviews)
    if empty := [f for f in changed if f.population and not f.reviewed]:
        print(f"note: {len(empty)} strata are not reviewed yet and count as right; do not quote these numbers",
              file=sys.stderr)  # fmt: skip
    if args.json:
        kinds: dict[str, Sequence[Any]] = {"corrected": found, "flips": changed, "agreement": agreed}
        print_json({"kind": kind, **asdict(line)} for kind, lines in kinds.items() for line in lines)
    else:
        show(_corrected(found), _flips(changed), _agreement(agreed))
    return 0


def _corrected(found: Sequence[Corrected]) -> Table:
    heads = ("guard", "cell", "original", "corrected", "95%", "flips for it")
    table = table_of(*heads, words=2, title="F1 on original and corrected labels")
    for c in found:
        table.add_row(
            escape(printable(c.guard, 30)), escape(f"{c.benchmark}"), f"{c.original:.2f}", f"{c.corrected.value:.2f}",
            f"{c.corrected.low:.1f}–{c.corrected.high:.1f}", f"{c.favouring} of {c.flips}",
        )  # fmt: skip
    return table


def _flips(changed: Sequence[Flips]) -> Table:
    heads = ("cell", "task", "stratum", "rows", "reviewed", "changed")
    table = table_of(*heads, words=3, title="changed labels per stratum")
    for f in changed:
        counts = [f"{n:,}" for n in (f.population, f.reviewed, f.flipped)]
        table.add_row(escape(f.benchmark), NAMES[f.task.value], f.stratum, *counts)
    return table


def _agreement(found: Sequence[Agreement]) -> Table:
    table = table_of("reviewers", "task", "rows", "same", "kappa", words=2, title="reviewers, two by two")
    for a in found:
        names = escape(printable(f"{a.a}, {a.b}"))
        table.add_row(names, NAMES[a.task.value], f"{a.rows:,}", f"{a.same:,}", number(a.kappa, 2))
    return table
