"""`guardreasoner score FILE --benchmark NAME`: re-score stored predictions, ours or the official ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from guardreasoner.cli.options import add_data
from guardreasoner.cli.show_scores import points_table, scores_table
from guardreasoner.cli.tables import print_json, show
from guardreasoner.data.labelled import parse_mapping
from guardreasoner.evaluate.score import as_row, score_file
from guardreasoner.types import Rule

CAPITALS = "some answers are capitalised; the released script stops at them, here they are a class of their own"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="RUN/verdicts/<Benchmark>.jsonl, or an official "
                        "generated_predictions.jsonl")  # fmt: skip
    parser.add_argument("--benchmark", required=True, metavar="NAME|FILE", help="what the file answers")
    parser.add_argument("--map", action="append", metavar="FIELD=COLUMN,...", help="columns of a file of your own, as "
                        "`evaluate` was given them")  # fmt: skip
    parser.add_argument("--task", metavar="TASK", help="only prompt_harm, refusal or response_harm")
    parser.add_argument(
        "--rule", choices=get_args(Rule), default="strict", help="how answers are read (default strict)"
    )
    add_data(parser)
    parser.add_argument("--partial", action="store_true", help="score what is there of a run with --limit")
    parser.add_argument("--json", action="store_true", help="one JSON object per task")


def run(args: argparse.Namespace) -> int:
    scores, notes = score_file(
        args.file,
        args.benchmark,
        task=args.task,
        rule=args.rule,
        data_dir=args.data,
        mapping=parse_mapping(args.map),
        partial=args.partial,
    )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if any(s.extra["other_case"] for s in scores):
        print(f"note: {CAPITALS}", file=sys.stderr)
    if args.json:
        print_json(map(as_row, scores))
    else:
        show(scores_table(scores), points_table(scores))
    return 0
