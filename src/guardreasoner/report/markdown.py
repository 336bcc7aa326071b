"""The report as Markdown: tables, sentences and figures; judged text stays out, rows are named by id."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from guardreasoner.report import content
from guardreasoner.report.build import Report
from guardreasoner.report.content import (
    CAPTIONS,
    FOOTNOTES,
    TASK_NAMES,
    fixed,
    mean_head,
    published_notes,
    span,
    summary,
)
from guardreasoner.report.tables import Entry, Line, TaskTable
from guardreasoner.report.worth_reading import visible

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~])")


def plain(text: object) -> str:
    """Text that Markdown and HTML cannot take for markup, on one line, with nothing invisible in it."""
    shown = html.escape(visible(" ".join(str(text).split())), quote=False)
    return _SPECIAL.sub(r"\\\1", shown)


def render_markdown(report: Report) -> str:
    """The whole report."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {plain(report.title)}"
    yield ""
    yield f"{len(report.contestants)} runs, made {report.made} with guardreasoner {report.version}."
    yield ""
    heads, rows = summary(report)
    yield "## Means per task"
    yield ""
    yield from _table(heads, [[_name(line.name, line.kind), *cells] for line, cells in rows])
    for table in report.standings.tables:
        yield from _task(report, table)
    for name, caption in CAPTIONS.items():
        if name in report.figures:
            yield f"![{caption}](figures/{name}.svg)"
            yield ""
            yield caption
            yield ""
    yield from _rest(report)


def _task(report: Report, table: TaskTable) -> Iterator[str]:
    yield f"## {TASK_NAMES[table.task]}"
    yield ""
    heads = [
        "guard",
        *[f"{plain(c)}{' †' if c in table.all_positive else ''} ({table.rows[c]:,})" for c in table.columns],
    ]
    heads += [mean_head(table, shared) for shared in _means(table)]
    rows = [
        [_name(line.name, line.kind), *[_entry(line.entries.get(c)) for c in table.columns], *_mean_cells(table, line)]
        for line in table.lines
    ]
    yield from _table(heads, rows)
    for note in FOOTNOTES:
        yield f"- {note}"
    for note in published_notes(table):
        yield f"- {plain(note)}"
    yield ""
    if said := content.sentences(report, table.task):
        yield from (f"- {plain(sentence)}" for sentence in said)
        yield ""
    yield f"![F1 per benchmark](figures/f1_{table.task.value}.svg)"
    yield ""
    yield from _plain(content.SCORE_HEADS, [content.score_row(s, report) for s in report.details(table.task)])


def _means(table: TaskTable) -> list[bool]:
    return [False] if set(table.shared) == set(table.columns) or not table.shared else [False, True]


def _mean_cells(table: TaskTable, line: Line) -> list[str]:
    return [_entry(line.shared if shared else line.mean) for shared in _means(table)]


def _entry(entry: Entry | None) -> str:
    if entry is None:
        return "–"
    text = fixed(entry.value)
    text = f"**{text}**" if entry.mark == "best" else f"<u>{text}</u>" if entry.mark == "runner-up" else text
    tag = {"train split": " ᵀ", "same pool": " ᴾ"}.get(entry.tag or "", "")
    interval = f" ({span(entry.low, entry.high)})" if entry.low is not None else ""
    return f"{text}{tag}{'  !' if entry.wrong else ''}{interval}"


def _name(name: str, kind: str) -> str:
    return f"**{plain(name)}**" if kind == "ours" else plain(name)


def _rest(report: Report) -> Iterator[str]:
    parts = (
        ("Adversarial and plain requests", content.SLICE_HEADS, content.slice_rows(report.slices)),
        ("Original and corrected labels", content.LABEL_HEADS, content.label_rows(report.relabelled)),
        ("Cost", content.COST_HEADS, content.cost_rows(report.costs)),
        ("Training", content.STAGE_HEADS, content.stage_rows(report.stages)),
        ("Training traces (Table 1)", content.CORPUS_HEADS, content.corpus_rows(report.corpora)),
        ("Most confident errors", ("guard", "row", "task", "gold", "answer", "P(positive)"), list(_errors(report))),
    )
    for title, heads, rows in parts:
        if rows:
            yield f"## {title}"
            yield ""
            yield from _plain(heads, rows)
    if report.notes:
        yield "## Notes"
        yield ""
        yield from (f"- {plain(note)}" for note in report.notes)


def _errors(report: Report) -> Iterator[list[str]]:
    for guard, own in report.mistakes.items():
        for m in own:
            yield [guard, m.verdict.exchange_id, TASK_NAMES[m.task], m.gold, m.said or "none", fixed(m.score, 3)]


def _plain(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield from _table(heads, [[plain(v) for v in row] for row in rows])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
