"""Results in the terminal: a table for people, JSON lines for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNSEEN = 1000
"""Width where nobody looks: nothing is cut there."""


def table_of(*heads: str, words: int = 1, last_words: int = 0, title: str = "", folds: Iterable[str] = ()) -> Table:
    """An empty table.

    Args:
        words: how many of the first columns hold words; numbers are set flush right.
        last_words: how many of the last ones do.
        folds: columns that may take several lines; the others stay on one.
    """
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, padding=0)
    for number, head in enumerate(heads):
        left = number < words or number >= len(heads) - last_words
        table.add_column(head, justify="left" if left else "right", no_wrap=head not in folds, overflow="fold")
    return table


def show(*parts: Table | str | None, wrap: bool = True) -> None:
    """Print tables, and lines as they are (no markup); None is left out. `wrap` false = lines may pass the edge."""
    console = Console(highlight=False, soft_wrap=not wrap, width=None if sys.stdout.isatty() else UNSEEN)
    with console.capture() as shown:
        for part in parts:
            if part is not None:
                console.print(Text(part) if isinstance(part, str) else part)
    print("\n".join(line.rstrip() for line in shown.get().splitlines()))


def print_json(rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    for row in rows:
        print(json.dumps(row))
