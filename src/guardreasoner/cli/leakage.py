"""`guardreasoner leakage TRAIN...`: which benchmark rows are near-duplicates of training rows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from guardreasoner.cli.options import add_data
from guardreasoner.cli.tables import print_json, show, table_of
from guardreasoner.data.benchmarks import BENCHMARKS, is_file, load_benchmarks, local_file
from guardreasoner.data.everyday import shipped
from guardreasoner.data.labelled import parse_mapping
from guardreasoner.errors import DataError
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.evaluate.leakage import METHODS, NEAR, CleanF1, Leak, leakage, read_training, without
from guardreasoner.evaluate.statistics import outcomes
from guardreasoner.records import write_jsonl
from guardreasoner.run_folder import refuse_overwriting


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("train", nargs="+", type=Path, metavar="TRAIN", help="training rows: .jsonl files or folders")
    parser.add_argument(
        "--benchmark",
        action="append",
        metavar="NAME|FILE",
        help="repeatable (default: all that are there)",
    )
    parser.add_argument("--map", action="append", metavar="FIELD=COLUMN,...", help="columns of a file of your own")
    add_data(parser)
    parser.add_argument("--method", choices=METHODS, default="ngram", help="how texts are compared (default ngram)")
    parser.add_argument("--threshold", type=float, metavar="X", help="similarity of a near-duplicate (default "
                        + ", ".join(f"{m} {x:g}" for m, x in NEAR.items()) + ")")  # fmt: skip
    parser.add_argument("--run", type=Path, metavar="RUN", help="give this run's F1 with and without near-duplicates",
                        dest="run_folder")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="write row ids and where they were found, no texts")
    parser.add_argument("--json", action="store_true", help="one JSON object per benchmark instead of the table")


def run(args: argparse.Namespace) -> int:
    names = args.benchmark or [n for n in BENCHMARKS if local_file(n, args.data)]
    if not names:
        raise DataError("no benchmark was found; give --benchmark FILE, or --data DIR with benchmarks/")
    if args.out:
        refuse_overwriting(args.out, [*args.train, *(shipped(n) for n in names if is_file(n))])
    loaded = load_benchmarks(names, args.data, mapping=parse_mapping(args.map))
    prompts, responses = read_training(args.train)
    print(f"{len(prompts):,} training requests, {len(responses):,} replies", file=sys.stderr)
    leaks = leakage(loaded, prompts, responses, method=args.method, threshold=args.threshold)
    cleaned = _cleaned(args.run_folder, leaks) if args.run_folder else []
    if args.out:
        write_jsonl(args.out, [{"benchmark": leak.benchmark, **asdict(o)} for leak in leaks for o in leak.overlaps])
    if args.json:
        print_json(_as_dict(leak, [c for c in cleaned if c.benchmark == leak.benchmark]) for leak in leaks)
    else:
        show(_table(leaks), _clean_table(cleaned) if cleaned else None)
    return 0


def _cleaned(folder: Path, leaks: Sequence[Leak]) -> list[CleanF1]:
    gone = {leak.benchmark: leak.leaked for leak in leaks}
    found = [one for one in open_run(folder).benchmarks if one.benchmark in gone]
    if not found:
        raise DataError(f"{folder} holds none of the benchmarks that were compared")
    return [without(outcomes(s, task), gone[s.benchmark]) for s in found for task in s.answered]


def _as_dict(leak: Leak, cleaned: Sequence[CleanF1]) -> dict[str, object]:
    return {
        "benchmark": leak.benchmark,
        "method": leak.method,
        "rows": leak.rows,
        "responses": leak.responses,
        "prompt_near_duplicates": leak.count("prompt"),
        "response_near_duplicates": leak.count("response"),
        "leaked_rows": len(leak.leaked),
        "files": dict(leak.files.most_common()),
        "f1": [asdict(c) for c in cleaned],
    }


def _table(leaks: Sequence[Leak]) -> Table:
    heads = ("", "rows", "requests", "replies", "%", "most from")
    table = table_of(*heads, last_words=1, title=f"near-duplicates by {leaks[0].method}")
    for leak in leaks:
        source = leak.files.most_common(1)
        table.add_row(
            escape(leak.benchmark),
            f"{leak.rows:,}",
            f"{leak.count('prompt'):,}",
            f"{leak.count('response'):,}" if leak.responses else "–",
            f"{100 * len(leak.leaked) / leak.rows:.1f}" if leak.rows else "–",
            escape(f"{source[0][0].removesuffix('.jsonl')} ({source[0][1]})") if source else "",
        )
    return table


def _clean_table(cleaned: Sequence[CleanF1]) -> Table:
    heads = ("", "task", "F1", "left out", "F1 without", "95%")
    table = table_of(*heads, words=2, title="F1 with and without near-duplicates")
    for cell in cleaned:
        clean = ("–", "") if cell.clean is None else (
            f"{cell.clean.value:.2f}", f"{cell.clean.low:.1f}–{cell.clean.high:.1f}"
        )  # fmt: skip
        table.add_row(escape(cell.benchmark), cell.task, f"{cell.f1.value:.2f}", f"{cell.left_out:,}", *clean)
    return table
