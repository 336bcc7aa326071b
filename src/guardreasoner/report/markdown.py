"""The report as Markdown: tables, sentences and figures; rows are named by id, judged text is left out."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from guardreasoner.report.blocks import Block, Document, Exhibits, Fold, Grid, Head, Items, Number, Paragraph, Picture
from guardreasoner.report.worth_reading import visible

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~])")


def escaped(text: object) -> str:
    """Text that Markdown and HTML cannot take for markup, on one line, with nothing invisible in it."""
    shown = html.escape(visible(" ".join(str(text).split())), quote=False)
    return _SPECIAL.sub(r"\\\1", shown)


def render_markdown(document: Document) -> str:
    """The whole report."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield f"# {escaped(document.title)}"
    yield ""
    for warning in document.warnings:
        yield f"> **{escaped(warning)}**"
        yield ""
    yield escaped(document.lead)
    yield ""
    for section in document.sections:
        yield f"## {escaped(section.title)}"
        yield ""
        for block in section.blocks:
            yield from _block(block, document)


def _block(block: Block, document: Document) -> Iterator[str]:
    if isinstance(block, Grid):
        yield from _table(block)
    elif isinstance(block, Paragraph):
        yield escaped(block.text)
        yield ""
    elif isinstance(block, Items):
        yield from (f"- {escaped(item)}" for item in block.items)
        yield ""
    elif isinstance(block, Picture) and block.name in document.figures:
        yield f"![{escaped(block.caption)}](figures/{block.name}.svg)"
        yield ""
    elif isinstance(block, Fold):
        yield f"### {escaped(block.title)}"
        yield ""
        for inner in block.blocks:
            yield from _block(inner, document)
    elif isinstance(block, Exhibits) and block.instead is not None:
        yield from _table(block.instead)


def _table(grid: Grid) -> Iterator[str]:
    yield f"| {' | '.join(_head(head) for head in grid.heads)} |"
    yield f"|{'---|' * len(grid.heads)}"
    for line in grid.lines:
        first, *rest = [_cell(cell) for cell in line.cells]
        yield f"| {' | '.join([f'**{first}**' if line.kind == 'ours' else first, *rest])} |"
    yield ""


def _head(head: str | Head) -> str:
    if isinstance(head, str):
        return escaped(head)
    return escaped(head.text) + (f" ({escaped(head.small)})" if head.small else "")


def _cell(cell: str | Number) -> str:
    if isinstance(cell, str):
        return escaped(cell)
    text = escaped(cell.text)
    text = {"best": f"**{text}**", "runner-up": f"<u>{text}</u>"}.get(cell.mark, text)
    sign = "".join({"T": " ᵀ", "P": " ᴾ"}.get(s, f" {s}") for s in cell.sign)
    return f"{text}{sign}" + (f" ({escaped(cell.small)})" if cell.small else "")
