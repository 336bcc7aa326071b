"""What the tables of a report print, once for Markdown and for HTML: heads, rows, captions, notes; plain text only."""

from __future__ import annotations

from collections.abc import Sequence

from guardreasoner.data.benchmarks import BENCHMARKS
from guardreasoner.evaluate.compare import Comparison
from guardreasoner.evaluate.slices import Slice
from guardreasoner.report.build import Relabelled, Report
from guardreasoner.report.cost import Corpus, Cost, Stage
from guardreasoner.report.tables import Line, TaskTable
from guardreasoner.report.worth_reading import opinionated
from guardreasoner.types import TASKS, Score, Task

TASK_NAMES = {Task.prompt_harm: "Prompt harm", Task.refusal: "Refusal", Task.response_harm: "Response harm"}
CAPTIONS = {
    "precision_recall": "Precision against recall over all rows of a task; dotted: the share of positives, which is "
    "the precision of always answering with the positive label. In brackets the area.",
    "reliability": "What scores mean: share of positives in ten bins of equal mass. On the dotted diagonal a score of "
    "0.8 is right eight times out of ten.",
    "confusion": "Gold against answer over all cells of a task; an answer that could not be read counts as wrong.",
    "reasoning_length": "Right answers against words of reasoning, in fifths of each guard's traces, 95% intervals.",
    "training": "Training loss per stage with its running mean.",
}
FOOTNOTES = (
    "In brackets (or small print) the 95% interval, prompts resampled. Published numbers have none.",
    "Bold: best, underlined: runner-up. A guard that a paired test cannot tell from the leader of a place shares it; "
    "published numbers have no rows to test and share a place only with an equal number.",
    "† Every row of this column is positive: its F1 is nothing but recall, bent (2R / (1 + R)).",
    "ᵀ The guard was trained on the train split of this benchmark. ᴾ It was trained on other rows of the same prompt "
    "pool. No mark: neither, or, for guards marked ?, nobody said.",
    "! Known not to be what the column says; such cells take no place. The notes below say why.",
)


def fixed(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def span(low: float | None, high: float | None) -> str:
    """An interval."""
    return "" if low is None or high is None else f"{low:.1f}–{high:.1f}"


def mean_head(table: TaskTable, shared: bool) -> str:
    """The head of a mean column: over how many cells it is taken."""
    cells = table.shared if shared else table.columns
    if shared:
        return f"mean of {len(cells)} that every run has"
    papers = len(cells) < table.paper_columns and set(cells) <= set(BENCHMARKS)
    part = f" of the paper's {table.paper_columns}" if papers else ""
    return f"mean of {len(cells)}{part}"


def summary(report: Report) -> tuple[list[str], list[tuple[Line, list[str]]]]:
    """The means of all tasks side by side (Table 6): heads, and per guard its cells.

    A task whose cells not every run has is given over the cells that all have.
    """
    tables = report.standings.tables
    heads = ["guard", *[f"{TASK_NAMES[t.task]}, {mean_head(t, partly(t))}" for t in tables], "mean of the tasks"]
    order: dict[tuple[str, str], Line] = {(ln.kind, ln.name): ln for t in tables for ln in t.lines}
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
        texts = ["–" if m is None else fixed(m.value) + (f" ({span(m.low, m.high)})" if m.low is not None else "")
                 for m in means]  # fmt: skip
        rows.append((line, [*texts, fixed(whole)]))
    return heads, rows


def partly(table: TaskTable) -> bool:
    return bool(table.shared) and set(table.shared) != set(table.columns)


def score_row(score: Score, report: Report) -> list[str]:
    """One cell with everything: F1 never without the constant's."""
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
        fixed(extra.get("auroc"), 3),
        fixed(extra.get("auprc"), 3),
        fixed(extra.get("ece"), 3),
        f"{score.n:,}",
        f"{score.unparsed:,}",
    ]


def sentences(report: Report, task: Task) -> list[str]:
    """What the primary comparisons of a task say; the constant's place is in the table."""
    plain = {c.label for c in report.contestants if not opinionated(c)}
    return [c.sentence for c in report.standings.comparisons if c.task == task and not plain & {c.a, c.b}]


def score_rows(report: Report, task: Task) -> list[list[str]]:
    """Every cell of a task in full."""
    return [score_row(score, report) for score in report.details(task)]


def published_notes(table: TaskTable) -> list[str]:
    """What is to be said about published cells of a table, each thing once, with the guards it is about."""
    said: dict[str, list[str]] = {}
    for line in table.lines:
        for entry in line.entries.values():
            for note in entry.notes:
                if line.name not in said.setdefault(note, []):
                    said[note].append(line.name)
    return [f"{', '.join(guards)}: {note}" for note, guards in said.items()]


def look_rows(looks: Sequence[Comparison]) -> list[list[str]]:
    """Exploratory comparisons."""
    return [
        [c.a, c.b, c.benchmarks[0], f"{c.difference:+.2f}", f"{c.low:+.1f} to {c.high:+.1f}", f"{c.p:.3g}", c.method]
        for c in looks
    ]


def slice_rows(found: Sequence[Slice]) -> list[list[str]]:
    """Adversarial and plain rows."""
    return [
        [
            s.guard,
            s.benchmark,
            TASK_NAMES[s.task],
            s.kind,
            f"{s.rows:,}",
            fixed(s.f1.value),
            span(s.f1.low, s.f1.high),
            fixed(s.constant_f1),
            "–" if s.fpr is None else fixed(s.fpr.value, 1),
            "–" if s.attack_success is None else f"{fixed(s.attack_success.value, 1)} ({span(*s.attack_success[1:])})",
        ]
        for s in found
    ]


def label_rows(found: Sequence[Relabelled]) -> list[list[str]]:
    """Original against corrected labels."""
    return [
        [
            r.guard,
            r.benchmark,
            TASK_NAMES[r.task],
            f"{r.changed:,}",
            f"{fixed(r.original.value)} ({span(r.original.low, r.original.high)})",
            f"{fixed(r.corrected.value)} ({span(r.corrected.low, r.corrected.high)})",
        ]
        for r in found
    ]


def cost_rows(costs: Sequence[Cost]) -> list[list[str]]:
    """Cost per query."""
    return [
        [
            c.guard,
            *[fixed(v) for v in (c.ms_per_query, c.tokens_per_query, c.p50_ms, c.p95_ms, c.memory_gb)],
            "–" if c.queries is None else f"{c.queries:,}",
            c.where,
        ]
        for c in costs
    ]


def stage_rows(stages: Sequence[Stage]) -> list[list[str]]:
    """Training stages."""
    return [
        [
            f"{s.folder.parent.name} {s.name}",
            fixed(s.hours),
            *["–" if n is None else f"{n:,}" for n in (s.rows_in, s.rows_out)],
        ]
        for s in stages
    ]


def corpus_rows(corpora: Sequence[Corpus]) -> list[list[str]]:
    """Training traces."""
    return [
        [c.name, f"{c.samples:,}", f"{c.steps:,}", fixed(c.steps_per_sample), fixed(c.characters_per_step)]
        for c in corpora
    ]


SCORE_HEADS = ("guard", "benchmark", "F1", "95%", "const", "P", "R", "FPR", "AUROC", "AUPRC", "ECE", "n", "unread")
LOOK_HEADS = ("guard", "against", "benchmark", "difference", "95%", "p", "test")
SLICE_HEADS = ("guard", "benchmark", "task", "kind", "rows", "F1", "95%", "const", "FPR", "attack success")
LABEL_HEADS = ("guard", "benchmark", "task", "changed labels", "F1 original", "F1 corrected")
COST_HEADS = ("guard", "ms per query", "tokens per query", "p50 ms", "p95 ms", "memory GB", "queries", "measured")
STAGE_HEADS = ("stage", "hours", "rows in", "rows out")
CORPUS_HEADS = ("source", "samples", "steps", "steps per sample", "characters per step")
