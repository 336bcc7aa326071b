"""`guardreasoner check`: judge one exchange, JSON lines from standard input, or the bundled examples."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from typing import IO

from rich.console import Console

from guardreasoner.cli.options import add_guard, guard_options
from guardreasoner.cli.show_verdict import print_verdict
from guardreasoner.data.rows import ReadRow, line_of, read_row
from guardreasoner.data.tables import bounded_lines, read_line
from guardreasoner.errors import ConfigError, DataError
from guardreasoner.guards.base import Guard, judge_all, validate
from guardreasoner.guards.load import load_guard
from guardreasoner.records import dumps, to_dict
from guardreasoner.types import Exchange, Verdict
from guardreasoner.yaml_files import in_package

CHUNK = 32
FAIL_ON = ("harmful", "refusal", "any")

Rows = Iterator[tuple[int, ReadRow | DataError]]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="?", metavar="PROMPT", help='the request; "-" reads JSON lines with prompt, and '
                        "optionally response, context and id; or with messages")  # fmt: skip
    parser.add_argument("--prompt", metavar="TEXT", help='the request, whatever it begins with: --prompt="$REQUEST"')
    parser.add_argument("--response", metavar="TEXT", help='the reply to judge with it: --response="$REPLY"')
    parser.add_argument("--examples", action="store_true", help="judge the bundled example exchanges")
    parser.add_argument("--fail-on", choices=FAIL_ON, help="exit 10 when a verdict is that")
    parser.add_argument("--json", action="store_true", help="one JSON object per verdict")
    add_guard(parser)


def run(args: argparse.Namespace) -> int:
    if args.examples + (args.text is not None) + (args.prompt is not None) != 1:
        raise ConfigError('give a request (PROMPT, or --prompt=TEXT), "-" for JSON lines, or --examples')
    if args.response is not None and (args.text == "-" or args.examples):
        raise ConfigError("--response goes with one request; JSON lines have their own")
    rows = _rows(args)
    with load_guard(args.guard, **guard_options(args)) as guard:
        return _judge(guard, rows, args)


def _rows(args: argparse.Namespace) -> Rows:
    if args.examples:
        content = in_package("data/examples.jsonl").read_bytes()
        return _read(BytesIO(content), "examples.jsonl")
    if args.text == "-":
        return _read(sys.stdin.buffer, "standard input")
    exchange = Exchange("check", args.text if args.prompt is None else args.prompt, args.response)
    validate(exchange)
    return iter([(1, ReadRow(exchange, {}))])


def _read(stream: IO[bytes], name: str) -> Rows:
    for number, line in enumerate(bounded_lines(stream), 1):
        if line.strip():
            yield number, read_row(read_line(line, name, number), file=name, line=number)


def _judge(guard: Guard, rows: Rows, args: argparse.Namespace) -> int:
    console = Console(highlight=False)
    as_json = args.json or args.text == "-"
    seen = bad = met = unjudged = 0
    while chunk := list(islice(rows, CHUNK if as_json else 1)):
        verdicts = iter(judge_all(guard, [given.exchange for _, given in chunk if not isinstance(given, DataError)]))
        for line, given in chunk:
            seen += 1
            if isinstance(given, DataError):
                bad += 1
                print(dumps({"line": line, "error": str(given)}), flush=True)
                continue
            verdict = next(verdicts)
            met += _met(verdict, args.fail_on)
            unjudged += verdict.status != "ok" and verdict.fail_mode == "closed"
            if as_json:
                print(json.dumps(line_of(given.passing, to_dict(verdict))), flush=True)
            else:
                print_verdict(console, given.exchange, verdict)
    if not seen:
        raise DataError("there is no line to judge; each is an object with prompt", file="standard input")
    return 1 if bad else 10 if met else 11 if unjudged else 0


def _met(verdict: Verdict, fail_on: str | None) -> bool:
    harmful, refusal = verdict.labels.harmful, verdict.labels.refusal == "refusal"
    return {"harmful": harmful, "refusal": refusal, "any": harmful or refusal, None: False}[fail_on]
