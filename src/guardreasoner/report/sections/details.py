"""Curves, kinds of rows, corrected labels, texts to read, cost, and published figures."""

from __future__ import annotations

from collections.abc import Iterator

from guardreasoner.data.published import Table, elsewhere
from guardreasoner.report.blocks import (
    Block,
    Exhibits,
    Fold,
    Grid,
    Head,
    Items,
    Line,
    Paragraph,
    Picture,
    Section,
    plain,
)
from guardreasoner.report.findings import Report
from guardreasoner.report.sections.numbers import TASK_NAMES, fixed, span

CAPTIONS = {
    "precision_recall": "Precision against recall over all rows of a task; dotted: the share of positives, which is "
    "the precision of always answering with the positive label. In brackets the area.",
    "reliability": "What scores mean: share of positives in ten bins of equal mass. On the dotted diagonal a score of "
    "0.8 is right eight times out of ten.",
    "confusion": "Gold against answer over all cells of a task; an answer that could not be read counts as wrong.",
    "reasoning_length": "Right answers against words of reasoning, in fifths of each guard's traces, 95% intervals.",
    "training": "Training loss per stage with its running mean.",
}


def curves(report: Report) -> Section:
    drawn = [Picture(name, caption) for name, caption in CAPTIONS.items() if name in report.figures]
    return Section("Curves and confusion", "curves", drawn, "Curves")


def slices_and_labels(report: Report) -> Iterator[Section]:
    if report.slices:
        heads = ("guard", "benchmark", "task", "kind", "rows", "F1", "95%", "const", "FPR", "attack success")
        rows = [
            [s.guard, s.benchmark, TASK_NAMES[s.task], s.kind, f"{s.rows:,}", fixed(s.f1.value), span(*s.f1[1:]),
             fixed(s.constant_f1), "–" if s.fpr is None else fixed(s.fpr.value, 1),
             "–" if s.attack_success is None else f"{fixed(s.attack_success.value, 1)} ({span(*s.attack_success[1:])})"]
            for s in report.slices
        ]  # fmt: skip
        note = Paragraph("Attack success is the share of harmful rows that the guard let pass.", soft=True)
        yield Section("Adversarial and plain requests", "slices", [note, plain(heads, rows, left=4)], "Adversarial")
    if report.relabelled:
        columns = ("guard", "benchmark", "task", "changed labels", "F1 original", "F1 corrected")
        rows = [
            [r.guard, r.benchmark, TASK_NAMES[r.task], f"{r.changed:,}",
             *[f"{fixed(f1.value)} ({span(*f1[1:])})" for f1 in (r.original, r.corrected)]]
            for r in report.relabelled
        ]  # fmt: skip
        said = (
            f"{report.reviewed_rows:,} rows were reviewed; the majority of their reviewers decides, and rows nobody "
            "reviewed keep their labels. Where only disagreements of one guard were reviewed, its corrected F1 can "
            "only rise: `guardreasoner disagreements` draws a sample that is fair to all, and with `--reviews` "
            "estimates the corrected F1 of whole cells from it."
        )
        yield Section("Original and corrected labels", "labels", [Paragraph(said), plain(columns, rows, left=3)],
                      "Corrected labels")  # fmt: skip


def exhibits(report: Report) -> Iterator[Section]:
    if report.side_by_side:
        said = Paragraph(
            "Exchanges that the guards judge differently, in turn from each benchmark, those with reasoning first.",
            soft=True,
        )
        blocks: list[Block] = [said, Exhibits(side_by_side=report.side_by_side)]
        yield Section("The same exchange under several guards", "beside", blocks, "Side by side")
    said = Paragraph(
        "The most confident wrong answers of each guard, in turn from each task; those without a score come last.",
        soft=True,
    )
    heads = ("guard", "row", "task", "gold", "answer", "P(positive)")
    rows = [
        [guard, m.verdict.exchange_id, TASK_NAMES[m.task], m.gold, m.said or "none", fixed(m.score, 3)]
        for guard, own in report.mistakes.items()
        for m in own
    ]
    instead = plain(heads, rows, left=5) if rows else None
    yield Section(
        "Most confident errors", "errors", [said, Exhibits(mistakes=report.mistakes, instead=instead)], "Errors"
    )


def cost(report: Report) -> Section:
    heads = ("guard", "ms per query", "tokens read", "tokens written", "p50 ms", "p95 ms", "memory GB", "queries",
             "measured")  # fmt: skip
    rows = [
        [c.guard, *[fixed(v) for v in (c.ms_per_query, c.prompt_tokens, c.tokens_per_query, c.p50_ms, c.p95_ms,
                                       c.memory_gb)],
         "–" if c.queries is None else f"{c.queries:,}", c.where]
        for c in report.costs
    ]  # fmt: skip
    blocks: list[Block] = [plain(heads, rows)]
    if report.stages:
        stages = [
            [f"{s.folder.parent.name} {s.name}", fixed(s.hours),
             *["–" if n is None else f"{n:,}" for n in (s.rows_in, s.rows_out)]]
            for s in report.stages
        ]  # fmt: skip
        blocks += [Paragraph("Training"), plain(("stage", "hours", "rows in", "rows out"), stages)]
    for stage in (s for s in report.stages if s.table1):
        corpora = [
            [name, f"{row['samples']:,}", f"{row['steps']:,}", fixed(row["steps_per_sample"]),
             fixed(row["characters_per_step"])]
            for name, row in stage.table1.items()
        ]  # fmt: skip
        columns = ("source", "samples", "steps", "steps per sample", "characters per step")
        title = f"Traces of {stage.folder.parent.name} (Table 1)"
        blocks += [Paragraph(title), plain(columns, corpora)]
    return Section("Cost", "cost", blocks)


def published_elsewhere() -> Section:
    """Published numbers that were measured in another way: each table by itself, with its source."""
    blocks: list[Block] = [
        Paragraph(
            "Numbers of newer guards that were measured in another way than the tables above: other rows, another "
            "average, or another F1. They are listed with source and protocol, and enter no mean of this report."
        )
    ]
    for table in elsewhere():
        rows = [
            Line(
                [row + (f" ({variant})" if variant else ""), *[_as_printed(cells[c].value) for c in table.columns]],
                "published",
            )
            for (row, variant), cells in table.rows().items()
        ]
        said = [f"Unit: {table.unit}.", f"Protocol: {table.protocol}", f"Source: {table.source.rpartition('; ')[0]}."]
        if not table.confirmed:
            said.append("Not confirmed: read at second hand.")
        title = f"{table.about}: {', '.join(dict.fromkeys(c.row for c in table.cells))}"
        columns: list[str | Head] = ["guard", *[Head(c, breakable=True) for c in table.columns]]
        blocks.append(Fold(title, [Grid(columns, rows), Items([*said, *_notes(table)], soft=True)]))
    return Section("Published under other protocols", "elsewhere", blocks, "Elsewhere")


def _as_printed(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _notes(table: Table) -> Iterator[str]:
    """Each note once, with the rows it is about, and the columns where it is not about all of them."""
    for note in dict.fromkeys(note for c in table.cells for note in c.notes):
        about = [c for c in table.cells if note in c.notes]
        rows, columns = (list(dict.fromkeys(getattr(c, key) for c in about)) for key in ("row", "column"))
        where = "" if len(columns) == len(table.columns) else f", {', '.join(columns)}"
        yield f"{', '.join(rows)}{where}: {note}"
