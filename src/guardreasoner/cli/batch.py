"""`guardreasoner batch`: a guard over a table of any size."""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from guardreasoner.batch import run_batch, run_on_ray
from guardreasoner.cli.options import add_guard, guard_options, identity
from guardreasoner.data.labelled import parse_mapping
from guardreasoner.data.rows import READ
from guardreasoner.guards.load import find_row, load_guard

UNJUDGED = 11
PLAIN_EVERY_S = 10.0
"""How often progress is a line, if there is no terminal."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN", help="rows with prompt, optionally response, context and id, or with "
                        "messages: .jsonl, .json, .csv, .tsv (also .gz) or .parquet")  # fmt: skip
    parser.add_argument(
        "out", metavar="OUT", help=".jsonl, .csv, .tsv (also .gz) or .parquet; what is there is resumed"
    )
    parser.add_argument("--map", action="append", metavar="FIELD=COLUMN,...", help="columns of IN with other names: "
                        "prompt=question,response=answer")  # fmt: skip
    parser.add_argument("--texts", action="store_true", help="repeat prompt, response and context beside each verdict; "
                        "without it OUT has the verdicts and your other columns only")  # fmt: skip
    parser.add_argument("--runner", choices=("local", "ray"), default="local", help="where it runs (default local)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="guards of --runner ray (default 2)")
    parser.add_argument("--fresh", action="store_true", help="throw away what OUT holds")
    parser.add_argument("--json", action="store_true", help="print the manifest as one JSON object")
    add_guard(parser)


def run(args: argparse.Namespace) -> int:
    if ":" not in args.guard:
        find_row(args.guard)
    options = guard_options(args)
    columns = {name: column.name for name, column in parse_mapping(args.map, READ).items()}
    config = {
        "guard": args.guard,
        **({"map": ",".join(args.map)} if args.map else {}),
        **({"texts": "yes"} if args.texts else {}),
        **identity(args.guard, options),
    }
    with _Shown() as shown:
        manifest = run_batch(
            args.input,
            args.out,
            partial(load_guard, args.guard, **options),
            config=config,
            runner=run_on_ray(args.workers) if args.runner == "ray" else None,
            progress=shown,
            fresh=args.fresh,
            texts=args.texts,
            columns=columns,
        )
    counts, verdicts = manifest["counts"], manifest["verdicts"]
    if args.json:
        print(json.dumps(manifest))
    else:
        unjudged = ", ".join(f"{n} {status}" for status, n in sorted(verdicts["unjudged"].items())) or "none"
        print(f"{args.out}: {counts['in']} rows, {verdicts['flagged']} flagged, unjudged: {unjudged}", end="")
        print(f", unreadable: {counts['in'] - counts['out']}")
    return 1 if counts["in"] > counts["out"] else UNJUDGED if verdicts["unjudged_closed"] else 0


class _Shown:
    """Progress on standard error: a bar on a terminal, else a line now and then."""

    def __init__(self) -> None:
        columns = (TextColumn("judging"), BarColumn(), TextColumn("{task.fields[rows]} rows, {task.fields[rate]}/s"),
                   TimeRemainingColumn())  # fmt: skip
        self.console = Console(stderr=True)
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=1.0, rows=0, rate=0)
        self.first: tuple[float, int] | None = None
        self.said = time.monotonic()

    def __call__(self, share: float, rows: int) -> None:
        now = time.monotonic()
        self.first = self.first or (now, rows)
        rate = round((rows - self.first[1]) / (now - self.first[0])) if now > self.first[0] else 0
        self.bar.update(self.task, completed=share, rows=rows, rate=rate)
        if not self.console.is_terminal and now - self.said > PLAIN_EVERY_S:
            self.said = now
            print(f"judged {rows} rows ({share:.0%}), {rate}/s", file=sys.stderr, flush=True)

    def __enter__(self) -> _Shown:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
