"""F1 as the paper prints it: means, and one table per task with the runs and published guards in it."""

from __future__ import annotations

from guardreasoner.data.benchmarks import BENCHMARKS
from guardreasoner.report.blocks import (
    Block,
    Fold,
    Grid,
    Head,
    Items,
    Line,
    Number,
    Paragraph,
    Picture,
    Section,
    plain,
)
from guardreasoner.report.findings import Report
from guardreasoner.report.sections.numbers import TASK_NAMES, fixed, p_value, span
from guardreasoner.report.tables import Entry, Standing, TaskTable
from guardreasoner.report.worth_reading import opinionated
from guardreasoner.types import TASKS, Score, Task

FOOTNOTES = (
    "In brackets (or small print) the 95% interval, prompts resampled. Published numbers have none.",
    "Bold: best, underlined: runner-up. A guard that a paired test cannot tell from the leader of a place shares it "
    "(means: p corrected by Holm over the pairs of guards; cells: over the cells of a pair); "
    "published numbers have no rows to test and share a place only with an equal number. A run over a sample "
    "(`--limit`) takes no place.",
    "† Every row of this column is positive: its F1 is nothing but recall, bent (2R / (1 + R)).",
    "ᵀ The guard was trained on the train split of this benchmark. ᴾ It was trained on other rows of the same prompt "
    "pool. No mark: neither, or, for guards marked ?, unknown.",
    "! Known not to be what the column says; such cells take no place. The notes below say why.",
)
SCORE_HEADS = ("guard", "benchmark", "F1", "95%", "const", "P", "R", "FPR", "AUROC", "AUPRC", "ECE", "n", "unparsed")


def means(report: Report) -> Section:
    heads, rows = summary(report)
    said = (
        "F1 in percent, weighted by rows, answers that could not be read counted as wrong once. A guard is worth "
        "something on a task only as far as it is above always positive, the guard that flags everything."
    )
    ours = Grid(heads, [Line([_label(line), *cells], line.kind) for line, cells in rows if line.kind != "published"])
    published = [Line([line.name, *cells], line.kind) for line, cells in rows if line.kind == "published"]
    blocks: list[Block] = [Paragraph(said), ours]
    if published:
        note = (
            "Means of the published cells, with the same weights as above; not the means that the papers print, which "
            "are over other cells. Weights, cells and training sets differ; see the notes of each table."
        )
        title = f"Published guards on the same cells ({len(published)})"
        blocks.append(Fold(title, [Paragraph(note, soft=True), Grid(heads, published)]))
    return Section("Means per task", "means", blocks, "Means")


def mean_head(table: TaskTable, shared: bool) -> str:
    """The head of a mean column: over how many cells it is taken."""
    cells = table.shared if shared else table.columns
    if shared:
        return f"mean of {len(cells)} that every run has"
    papers = len(cells) < table.paper_columns and set(cells) <= set(BENCHMARKS)
    part = f" of the paper's {table.paper_columns}" if papers else ""
    return f"mean of {len(cells)}{part}"


def summary(report: Report) -> tuple[list[str | Head], list[tuple[Standing, list[str | Number]]]]:
    """The means of all tasks side by side (Table 6): heads, and per guard its cells.

    A task whose cells not every run has is given over the cells that all have.
    """
    tables = report.standings.tables
    heads: list[str | Head] = [
        "guard",
        *[Head(TASK_NAMES[t.task], mean_head(t, partly(t))) for t in tables],
        "mean of the tasks",
    ]
    order: dict[tuple[str, str], Standing] = {(ln.kind, ln.name): ln for t in tables for ln in t.lines}
    rows = []
    for key, line in order.items():
        found = [next((ln for ln in t.lines if (ln.kind, ln.name) == key), None) for t in tables]
        means = [
            None if ln is None else (ln.shared if partly(t) else ln.mean) for ln, t in zip(found, tables, strict=True)
        ]
        if all(m is None for m in means):
            continue
        values = [m.value for m in means if m is not None]
        whole = sum(values) / len(values) if len(values) == len(TASKS) else None
        cells = ["–" if m is None else Number(fixed(m.value), span(m.low, m.high)) for m in means]
        rows.append((line, [*cells, fixed(whole)]))
    return heads, rows


def partly(table: TaskTable) -> bool:
    return bool(table.shared) and set(table.shared) != set(table.columns)


def _label(line: Standing) -> str:
    return f"{line.name} (sample)" if line.sample else line.name


def task(report: Report, table: TaskTable) -> Section:
    name = TASK_NAMES[table.task]
    blocks: list[Block] = [
        _standings(table),
        Fold("How to read this table", [Items([*FOOTNOTES, *published_notes(table)], soft=True)]),
        Picture(f"f1_{table.task.value}",
                "F1 per benchmark with 95% intervals; dotted: always answering with the positive label."),
    ]  # fmt: skip
    if said := sentences(report, table.task):
        blocks.append(Items(said))
    blocks.append(Fold("Every cell in full", [plain(SCORE_HEADS, score_rows(report, table.task), left=2)]))
    looks = [c for c in report.standings.looks if c.task == table.task]
    if looks:
        note = (
            "Many looks at once: p is corrected by Holm over the cells of a pair, not over pairs. It is how often "
            "exchanging the two guards' answers, prompt by prompt, gives as large a difference of F1."
        )
        heads = ("guard", "against", "benchmark", "difference", "95%", "p")
        rows = [
            [
                c.a,
                c.b,
                c.benchmarks[0],
                f"{c.difference:+.2f}",
                f"{c.low:+.1f} to {c.high:+.1f}",
                p_value(c.p),
            ]
            for c in looks
        ]
        blocks.append(Fold("Cell by cell, exploratory", [Paragraph(note, soft=True), plain(heads, rows, left=3)]))
    return Section(name, table.task.value, blocks)


def _standings(table: TaskTable) -> Grid:
    heads: list[str | Head] = ["guard", *[_head(table, c) for c in table.columns], mean_head(table, False)]
    if partly(table):
        heads.append(mean_head(table, True))
    if table.foreign:
        heads.append(f"mean of {len(table.foreign)} that no run saw in training")
    heads += [_head(table, c) for c in table.apart]
    return Grid(heads, [_standing(table, line) for line in _ordered(table)])


def _head(table: TaskTable, column: str) -> Head:
    recall = column in table.all_positive
    small = [f"{table.rows[column]:,} rows", *["recall"] * recall, *["in no mean"] * (column in table.apart)]
    return Head(f"{column}{' †' if recall else ''}", ", ".join(small), True)


def _standing(table: TaskTable, line: Standing) -> Line:
    cells: list[str | Number] = [_label(line) + ("" if line.known else "\u00a0?")]
    cells += [_number(line.entries.get(c)) for c in table.columns]
    cells.append(_number(line.mean))
    if partly(table):
        cells.append(_number(line.shared))
    if table.foreign:
        cells.append(fixed(line.foreign))
    return Line([*cells, *[_number(line.entries.get(c)) for c in table.apart]], line.kind)


def _ordered(table: TaskTable) -> list[Standing]:
    """Runs first, then the constant, then published guards from the highest mean down."""

    def key(line: Standing) -> tuple[int, float]:
        best = line.mean or line.shared
        return ("ours", "constant", "published").index(line.kind), -(best.value if best else -1.0)

    return sorted(table.lines, key=key)


def _number(entry: Entry | None) -> str | Number:
    if entry is None:
        return "–"
    sign = {"train split": "T", "same pool": "P"}.get(entry.tag or "", "") + ("!" if entry.wrong else "")
    small = span(entry.low, entry.high) + (f", n {entry.rows:,}" if entry.rows is not None else "")
    return Number(fixed(entry.value), small, entry.mark, sign, entry.wrong)


def score_rows(report: Report, task: Task) -> list[list[str]]:
    """Every cell of a task in full; F1 never without the constant's."""
    return [_score_row(score, report) for score in report.details(task)]


def _score_row(score: Score, report: Report) -> list[str]:
    extra = score.extra
    table = next(t for t in report.standings.tables if t.task == score.task)
    line = next(ln for ln in table.lines if ln.kind == "ours" and ln.name == score.guard)
    entry = line.entries[score.benchmark]
    recall = " (recall only)" if extra.get("all_positive") else ""
    return [
        score.guard,
        score.benchmark + (" †" if extra.get("all_positive") else ""),
        fixed(score.f1) + recall,
        span(entry.low, entry.high),
        fixed(extra["constant_f1"]),
        fixed(score.precision, 1),
        fixed(score.recall, 1),
        fixed(extra.get("fpr"), 1),
        *[fixed(extra.get(name), 3) for name in ("auroc", "auprc", "ece")],
        f"{score.n:,}",
        f"{score.unparsed:,}",
    ]


def sentences(report: Report, task: Task) -> list[str]:
    """What the primary comparisons of a task say; the constant's place is in the table."""
    dull = {c.label for c in report.contestants if not opinionated(c)}
    return [c.sentence for c in report.standings.comparisons if c.task == task and not dull & {c.a, c.b}]


def published_notes(table: TaskTable) -> list[str]:
    """What is to be said about published cells of a table, each thing once, with the guards it is about."""
    said: dict[str, list[str]] = {}
    for line in table.lines:
        for entry in line.entries.values():
            for note in entry.notes:
                if line.name not in said.setdefault(note, []):
                    said[note].append(line.name)
    return [f"{', '.join(guards)}: {note}" for note, guards in said.items()]
