"""`guardreasoner report RUN... --out DIR`: Markdown and one self-contained HTML page over finished runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from guardreasoner.report.build import build
from guardreasoner.report.cost import read_prices
from guardreasoner.report.write import write_report


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders of `evaluate`, or folders of "
                        "official <Benchmark>/generated_predictions.jsonl")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="report.html, report.md, figures/")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with benchmarks/, for the texts of errors "
                        "(default GUARDREASONER_DATA)")  # fmt: skip
    parser.add_argument("--title", default="Guard evaluation", help="of the page")
    parser.add_argument(
        "--errors", type=int, default=24, metavar="N", help="wrong answers to show per run (default 24)"
    )
    parser.add_argument("--pairs", type=int, default=12, metavar="N", help="exchanges side by side (default 12)")
    parser.add_argument("--corrections", action="append", type=Path, default=[], metavar="FILE", help="Review records: "
                        "scores are given under original and corrected labels; repeatable")  # fmt: skip
    parser.add_argument("--per-hour", type=float, metavar="PRICE", help="what an hour of the machine that judged "
                        "costs, in dollars: gives the cost of 1,000 requests")  # fmt: skip
    parser.add_argument("--speed", action="append", type=Path, default=[], metavar="FILE", help="what `bench --json` "
                        "printed, used in place of the times in the runs; repeatable")  # fmt: skip
    parser.add_argument("--prices", type=Path, metavar="FILE", help="YAML of guard: {input, output, source, date}, "
                        "dollars per million tokens: the cost of guards behind an API")  # fmt: skip
    parser.add_argument("--training", action="append", type=Path, default=[], metavar="DIR", help="a folder with "
                        "training stages, for loss curves, hours and corpus statistics; repeatable")  # fmt: skip
    parser.add_argument("--stress", action="append", type=Path, default=[], metavar="RUN", help="a folder of "
                        "`guardreasoner stress`: a table and a figure of what passes; repeatable")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    made = build(
        args.runs,
        data_dir=args.data,
        title=args.title,
        errors=args.errors,
        pairs=args.pairs,
        corrections=args.corrections,
        training=args.training,
        stress=args.stress,
        per_hour=args.per_hour,
        speed=args.speed,
        prices=read_prices(args.prices) if args.prices else None,
        progress=lambda text: print(text, file=sys.stderr),
    )
    for path in write_report(made, args.out):
        print(path)
    return 0
