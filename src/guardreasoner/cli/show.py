"""`guardreasoner show`: print records of a run: training records as they are learned, preferences side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from guardreasoner.data.mix import draw
from guardreasoner.errors import ConfigError
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.records import from_dict, read_jsonl
from guardreasoner.types import Trace

WIDEST = 2000
"""Characters of one text that are shown; the rest is counted."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a run's folder, a stage's, or a .jsonl file")
    parser.add_argument("--n", type=int, default=3, metavar="N", help="how many records of each file (default 3)")
    parser.add_argument("--id", metavar="ID", help="only the record of this exchange")
    parser.add_argument("--seed", type=int, metavar="S", help="draw the records at random instead of from the top")


def run(args: argparse.Namespace) -> int:
    console = Console(highlight=False)
    for path in found(args.run_folder):
        rows = [row for _, row in read_jsonl(path)]
        chosen = choose(rows, args)
        console.print(Text(f"{path}: {len(rows)} records, {len(chosen)} shown", style="bold"))
        for row in chosen:
            console.print(panel(row))
    return 0


def found(path: Path) -> list[Path]:
    """The files of records in a run, a stage, or the file itself.

    Raises:
        ConfigError: there are none.
    """
    if path.is_file():
        return [path]
    names = ("traces.jsonl", "samples.jsonl", "preferences.jsonl")
    files = [p for name in names for p in sorted({*path.glob(name), *path.glob(f"*/{name}")})]
    if not files:
        raise ConfigError(f"{path} holds no records ({', '.join(names)}); give a run's folder or a .jsonl file")
    return files


def choose(rows: list[dict[str, Any]], args: argparse.Namespace) -> list[dict[str, Any]]:
    """The records that were asked for.

    Raises:
        ConfigError: there is no record of that id, or `--n` is below 1.
    """
    if args.n < 1:
        raise ConfigError("--n wants a number of at least 1")
    if args.id is not None:
        rows = [row for row in rows if _id(row) == args.id]
        if not rows:
            raise ConfigError("no record has that id")
    if args.seed is not None:
        rows = sorted(rows, key=lambda row: draw(args.seed, _id(row)))
    return list(islice(rows, args.n))


def _id(row: dict[str, Any]) -> str:
    exchange = row.get("example", {}).get("exchange", {}) if isinstance(row.get("example"), dict) else {}
    return str(exchange.get("id") or row.get("example_id") or row.get("exchange_id") or row.get("id") or "")


def panel(row: dict[str, Any]) -> Panel:
    """One record, readable; control characters shown, nothing of it taken as markup."""
    shape: Callable[[dict[str, Any]], Iterable[tuple[str, str]]] = (
        _trace if "reasoning" in row else _preference if "chosen" in row else _plain
    )
    text = Text()
    for title, content in shape(row):
        text.append(f"{shown(title)}\n", style="bold cyan")
        text.append(f"{shown(content)}\n\n")
    text.rstrip()
    return Panel(text, title=Text(shown(_id(row))), title_align="left")


def _trace(row: dict[str, Any]) -> list[tuple[str, str]]:
    example = row["example"]
    exchange = example["exchange"]
    about = f"{exchange.get('source') or 'no source'}, {example.get('category') or 'no category'}, by {row['teacher']}"
    context = [(m["role"], m["content"]) for m in exchange.get("context") or ()]
    reply = "None" if exchange.get("response") is None else exchange["response"]
    return [
        (about, ""),
        *context,
        (wire_format.HUMAN, exchange["prompt"]),
        (wire_format.ASSISTANT, reply),
        ("learned answer", wire_format.learned(from_dict(Trace, row)).rstrip("\n")),
    ]


def _preference(row: dict[str, Any]) -> list[tuple[str, str]]:
    exchange = row["prompt"]
    reply = "None" if exchange.get("response") is None else str(exchange["response"])
    return [
        (f"differ on {row['task']}: {row['wrong']} wrong, {row['right']} right, weight {row['weight']:.3f}", ""),
        (wire_format.HUMAN, str(exchange.get("prompt", ""))),
        (wire_format.ASSISTANT, reply),
        ("chosen", row["chosen"]),
        ("rejected", row["rejected"]),
    ]


def _plain(row: dict[str, Any]) -> list[tuple[str, str]]:
    texts = [(f"answer {n}", text) for n, text in enumerate(row.get("texts", ()), 1)]
    rest = {key: value for key, value in row.items() if key != "texts"}
    return [(key, value if isinstance(value, str) else repr(value)) for key, value in rest.items()] + texts


def shown(text: str) -> str:
    """Text for a terminal: line breaks stay, other control characters are written out, the end of a long one cut."""
    cut = text if len(text) <= WIDEST else f"{text[:WIDEST]} … ({len(text) - WIDEST} more characters)"
    return "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in cut)
