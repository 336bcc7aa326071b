"""`guardreasoner check`: judge one exchange, JSON lines from standard input, or the bundled examples."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from rich.console import Console

from guardreasoner.cli.options import add_guard, guard_options
from guardreasoner.cli.show_verdict import print_verdict
from guardreasoner.errors import ConfigError, DataError
from guardreasoner.guards.base import Guard
from guardreasoner.guards.load import load_guard
from guardreasoner.guards.reasoning import validate
from guardreasoner.records import dumps, parse_line, to_dict
from guardreasoner.types import Exchange, Message, Verdict

CHUNK = 32
FAIL_ON = ("harmful", "refusal", "any")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "prompt", nargs="?", help='the request; "-" reads JSON lines with prompt, and if you like response and id'
    )
    parser.add_argument("--response", metavar="TEXT", help="the reply to judge with it")
    parser.add_argument("--examples", action="store_true", help="judge the bundled example exchanges")
    parser.add_argument("--fail-on", choices=FAIL_ON, help="exit 10 when a verdict is that")
    parser.add_argument("--json", action="store_true", help="one JSON object per verdict")
    add_guard(parser)


def run(args: argparse.Namespace) -> int:
    if args.examples == (args.prompt is not None):
        raise ConfigError('give a request, "-" for JSON lines, or --examples')
    if args.prompt == "-" and args.response is not None:
        raise ConfigError("--response goes with one request; in JSON lines each line has its own response")
    rows = _rows(args)
    guard = load_guard(args.guard, **guard_options(args))
    try:
        return _judge(guard, rows, args)
    finally:
        guard.close()


@dataclass(frozen=True)
class _Row:
    exchange: Exchange
    extra: dict[str, Any]


@dataclass(frozen=True)
class _Bad:
    line: int
    error: DataError


def _rows(args: argparse.Namespace) -> Iterator[_Row | _Bad]:
    if args.examples:
        lines: Iterable[bytes] = (files("guardreasoner") / "data" / "examples.jsonl").read_bytes().splitlines()
        return _read(lines, "examples.jsonl")
    if args.prompt == "-":
        return _read(sys.stdin.buffer, "standard input")
    exchange = Exchange("check", args.prompt, args.response)
    validate(exchange)
    return iter([_Row(exchange, {})])


def _read(lines: Iterable[bytes], name: str) -> Iterator[_Row | _Bad]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _row(parse_line(line, file=name, line=number), name, number)
        except DataError as error:
            yield _Bad(number, error)


def _row(row: dict[str, Any], name: str, line: int) -> _Row:
    def text(field: str, default: str | None) -> str | None:
        value = row.get(field, default)
        if value is not None and not isinstance(value, str):
            raise DataError(f"a {type(value).__name__} where a text is wanted", file=name, line=line, field=field)
        return value

    prompt = text("prompt", None)
    response = text("response", None)
    if prompt is None and response is None:
        raise DataError("the line has no prompt", file=name, line=line, field="prompt")
    identity = row.get("id", str(line))
    exchange = Exchange(str(identity), prompt or "", response, _context(row.get("context"), name, line))
    try:
        validate(exchange)
    except DataError as error:
        raise DataError(error.message, file=name, line=line, field=error.field) from None
    return _Row(exchange, {k: v for k, v in row.items() if k not in ("id", "prompt", "response", "context")})


def _context(value: Any, name: str, line: int) -> tuple[Message, ...]:
    if value is None:
        return ()
    try:
        made = tuple(Message(m["role"], m["content"]) for m in value)
    except (TypeError, KeyError):
        made = None
    if made is None or not all(isinstance(m.role, str) and isinstance(m.content, str) for m in made):
        raise DataError('want a list of {"role", "content"}', file=name, line=line, field="context")
    return made


def _judge(guard: Guard, rows: Iterator[_Row | _Bad], args: argparse.Namespace) -> int:
    console = Console(highlight=False)
    bad = met = unjudged = False
    for chunk in _chunks(rows, CHUNK if args.json or args.prompt == "-" else 1):
        judged = iter(guard.judge([r.exchange for r in chunk if isinstance(r, _Row)]))
        for row in chunk:
            if isinstance(row, _Bad):
                bad = True
                print(dumps({"line": row.line, "error": str(row.error)}), flush=True)
                continue
            verdict = next(judged)
            met |= _met(verdict, args.fail_on)
            unjudged |= verdict.status != "ok" and verdict.fail_mode == "closed"
            if args.json or args.prompt == "-":
                print(json.dumps(json.loads(dumps({**row.extra, **to_dict(verdict)}))), flush=True)
            else:
                print_verdict(console, row.exchange, verdict)
    return 1 if bad else 10 if met else 11 if unjudged else 0


def _chunks(rows: Iterator[_Row | _Bad], size: int) -> Iterator[list[_Row | _Bad]]:
    chunk: list[_Row | _Bad] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _met(verdict: Verdict, fail_on: str | None) -> bool:
    harmful = "harmful" in (verdict.labels.prompt_harm, verdict.labels.response_harm)
    refusal = verdict.labels.refusal == "refusal"
    return {"harmful": harmful, "refusal": refusal, "any": harmful or refusal, None: False}[fail_on]
