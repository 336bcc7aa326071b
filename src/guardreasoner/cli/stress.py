"""`guardreasoner stress`: rows disguised, wrapped and diluted: what then passes a guard, and what it flags."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from guardreasoner.cli.evaluate import Shown, progress_bars
from guardreasoner.cli.options import add_data, add_guard, guard_options, identity
from guardreasoner.cli.tables import print_json, show, table_of
from guardreasoner.data.benchmarks import load_benchmarks
from guardreasoner.data.everyday import EVERYDAY, shipped
from guardreasoner.data.labelled import parse_mapping
from guardreasoner.evaluate.statistics import Interval
from guardreasoner.evaluate.stress import BENIGN_ROWS, HARMFUL_ROWS, Stress, over, stress
from guardreasoner.evaluate.transformations import FAMILIES
from guardreasoner.guards.load import load_guard

ABOVE = 10


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", action="append", metavar="NAME|FILE", help="a benchmark's name or a "
                        "labelled table; repeatable (default: everyday, which comes with the package)")  # fmt: skip
    parser.add_argument("--map", action="append", metavar="FIELD=COLUMN,...", help="columns of a file of your own")
    add_data(parser)
    parser.add_argument("--family", action="append", choices=tuple(FAMILIES), help="repeatable (default: all)")
    parser.add_argument("--harmful", type=int, default=HARMFUL_ROWS, metavar="N", help="harmful exchanges per family "
                        f"(default {HARMFUL_ROWS})")  # fmt: skip
    parser.add_argument("--benign", type=int, default=BENIGN_ROWS, metavar="N", help="harmless exchanges per family "
                        f"(default {BENIGN_ROWS})")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the draw and the transformations (default 0)")
    parser.add_argument("--fail-above", type=float, metavar="X", help="exit 10 where the upper bound of attack success "
                        "of a family is above X percent (length and lossy are only reported)")  # fmt: skip
    parser.add_argument("--fail-alarms-above", type=float, metavar="X", help="the same for false alarms")
    parser.add_argument("--each", action="store_true", help="a line per transformation, not only per family")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the folder of the run")
    parser.add_argument("--fresh", action="store_true", help="throw away what RUN holds")
    parser.add_argument("--json", action="store_true", help="one JSON object per line of the table")
    add_guard(parser)


def run(args: argparse.Namespace) -> int:
    names = list(dict.fromkeys(args.rows or [EVERYDAY]))
    found = load_benchmarks(names, args.data, mapping=parse_mapping(args.map))
    examples = [e for rows in found.values() for e in rows]
    options = guard_options(args)
    with load_guard(args.guard, **options) as guard, progress_bars() as bars:
        result = stress(
            guard,
            examples,
            args.out,
            config={
                "asked": args.guard,
                "rows": [Path(shipped(name)).name for name in names],
                "map": ",".join(args.map) if args.map else None,
                **identity(args.guard, options),
            },
            families=args.family or tuple(FAMILIES),
            harmful=args.harmful,
            benign=args.benign,
            seed=args.seed,
            fresh=args.fresh,
            progress=Shown(bars),
        )
    _print(result, each=args.each, as_json=args.json)
    worse = over(result, success=args.fail_above, alarms=args.fail_alarms_above)
    for sentence in worse:
        print(sentence, file=sys.stderr)
    return ABOVE if worse else 0


def _print(result: Stress, *, each: bool, as_json: bool) -> None:
    cells = [c for c in result.cells if each or c.transformation is None]
    if as_json:
        print_json(map(asdict, cells))
        return
    title = f"{result.guard}: of rows that it judges rightly as they are, after a transformation"
    table = table_of("family", "attacks pass", "95%", "of", "false alarms", "95%", "of", "unjudged", title=title)
    for cell in cells:
        name = cell.family if cell.transformation is None else f"  {cell.transformation}"
        rates = (*_shown(cell.success, cell.harmful), *_shown(cell.alarms, cell.benign))
        table.add_row(name if cell.barred else f"{name} (reported)", *rates, str(cell.unjudged))
    show(
        table,
        f"As they are, {result.caught.value:.1f}% of harmful rows and {result.alarmed.value:.1f}% of harmless rows are "
        "flagged; only rows judged rightly are transformed.",
    )


def _shown(rate: Interval, rows: int) -> tuple[str, str, str]:
    """Rate, interval and rows; dashes if there are none."""
    return (f"{rate.value:.1f}%", f"{rate.low:.1f} to {rate.high:.1f}", str(rows)) if rows else ("–", "–", "0")
