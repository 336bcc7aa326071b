"""`guardreasoner show`: records of a run: verdicts with gold, training records as they are learned, preferences."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from guardreasoner.cli.show_verdict import print_verdict, visible
from guardreasoner.data.mix import draw
from guardreasoner.errors import ConfigError, printable
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.evaluate.predictions import Prediction
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.records import from_dict, read_jsonl
from guardreasoner.types import Exchange, Trace

WIDEST = 2000
"""Characters of one text that are shown; the rest is counted."""
Record = tuple[str, Callable[[Console], None]]
"""Its id, and what prints it."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a run's folder, a stage's, or a .jsonl file")
    parser.add_argument("--n", type=int, default=3, metavar="N", help="how many records of each file (default 3)")
    parser.add_argument("--id", metavar="ID", help="only the record of this exchange")
    parser.add_argument("--seed", type=int, metavar="S", help="draw the records at random instead of from the top")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with benchmarks/, for the texts of verdicts "
                        "(default GUARDREASONER_DATA)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    console = Console(highlight=False)
    files = list(records(args.run_folder, args.data))
    chosen = {title: choose(rows, args) for title, rows in files}
    if args.id is not None and not any(chosen.values()):
        first = next((f"; the first is {printable(name)}" for _, rows in files for name, _ in rows), "")
        raise ConfigError(f"{args.run_folder} has no record of {printable(args.id)}{first}")
    for title, rows in files:
        if chosen[title] or args.id is None:
            console.print(Text(f"{title}: {len(rows)} records, {len(chosen[title])} shown", style="bold"))
        for _, show in chosen[title]:
            show(console)
    return 0


def records(path: Path, data: Path | None) -> Iterator[tuple[str, list[Record]]]:
    """Every file of a run with its records: verdicts of `evaluate`, or what a stage wrote."""
    if (path / "verdicts").is_dir():
        for one in open_run(path, data).benchmarks:
            yield one.benchmark, [(row.id, partial(_print_row, row)) for row in one.rows]
        return
    for file in found(path):
        yield str(file), [(_id(row), partial(_print_panel, row)) for _, row in read_jsonl(file)]


def _print_row(row: Prediction, console: Console) -> None:
    gold = ", ".join(f"{task} {row.gold[task]}" for task in row.gold.tasks)
    console.print(Text(f"{shown(row.id)}, gold: {gold}"))
    exchange = row.exchange or Exchange(row.id, "(the text is not here; give --data)", None)
    print_verdict(console, exchange, row.verdict)


def _print_panel(row: dict[str, Any], console: Console) -> None:
    console.print(panel(row))


def found(path: Path) -> list[Path]:
    """The files of records in a run, a stage, or the file itself."""
    if path.is_file():
        return [path]
    names = ("traces.jsonl", "samples.jsonl", "preferences.jsonl")
    files = [p for name in names for p in sorted({*path.glob(name), *path.glob(f"*/{name}")})]
    if not files:
        raise ConfigError(
            f"{path} holds no records (verdicts/, {', '.join(names)}); give a run's folder or a .jsonl file"
        )
    return files


def choose(rows: Sequence[Record], args: argparse.Namespace) -> list[Record]:
    """The records that were asked for."""
    asked = [row for row in rows if args.id in (None, row[0])]
    if args.seed is not None:
        asked.sort(key=lambda row: draw(args.seed, row[0]))
    return asked[: args.n]


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
    """Text for a terminal, the end of a long one cut."""
    return visible(text if len(text) <= WIDEST else f"{text[:WIDEST]} … ({len(text) - WIDEST} more characters)")
