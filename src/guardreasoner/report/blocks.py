"""What a report is made of: sections of plain blocks, written as Markdown and as HTML from the same values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from guardreasoner.report.worth_reading import Mistake, SideBySide


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a table, with its annotations."""

    text: str
    small: str = ""
    """Its interval, or the rows it is over."""
    mark: Literal["", "best", "runner-up"] = ""
    sign: str = ""
    """A raised letter that the notes explain."""
    wrong: bool = False
    """Known not to be what the column says."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a column."""

    text: str
    small: str = ""
    breakable: bool = False
    """A name such as OpenAIModeration that may be broken between its words."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table."""

    cells: Sequence[str | Number]
    kind: str = ""
    """`ours`, `constant` or `published`: how it is set off."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table."""

    heads: Sequence[str | Head]
    lines: Sequence[Line]
    left: int = 1
    """Columns that hold words, from the left."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph."""

    text: str
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: Sequence[str]
    soft: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure, by its name among the report's figures."""

    name: str
    caption: str


@dataclass(frozen=True, slots=True)
class Fold:
    """Blocks that a page shows when they are asked for."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Exhibits:
    """Judged texts. Only the page shows them, veiled; Markdown gives `instead`."""

    side_by_side: Sequence[SideBySide] = ()
    mistakes: Mapping[str, Sequence[Mistake]] = field(default_factory=dict)
    instead: Grid | None = None


Block = Grid | Paragraph | Items | Picture | Fold | Exhibits


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report with a heading."""

    title: str
    anchor: str
    blocks: Sequence[Block]
    link: str = ""
    """What the menu says; empty = the title."""


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report, ready to be written."""

    title: str
    lead: str
    warnings: Sequence[str]
    """Shown before everything else."""
    sections: Sequence[Section]
    figures: Mapping[str, bytes]
    """Name to SVG."""


def plain(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Grid:
    """A table of words and numbers without marks."""
    return Grid(heads, [Line(row) for row in rows], left)
