"""Tables of scores in the terminal: no F1 without the constant's F1 beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from guardreasoner.cli.tables import table_of
from guardreasoner.evaluate.operating_points import POINTS
from guardreasoner.evaluate.score import Average
from guardreasoner.evaluate.stability import Stability
from guardreasoner.types import TASKS, Score

NAMES = {"prompt_harm": "prompt harm", "refusal": "refusal", "response_harm": "response harm"}
HEADS = ("F1", "const", "P", "R", "FPR", "AUROC", "n", "unparsed")


def scores_table(scores: Sequence[Score], averages: Sequence[Average] = ()) -> Table:
    """One line per cell under its task, and per task its weighted and macro mean; below them what enters no mean.

    `const` is the F1 of always answering with the positive label; `unparsed` counts rows without a readable verdict.
    """
    title = f"{scores[0].guard}, rule {scores[0].rule}" if scores else ""
    table = table_of("", *HEADS, title=escape(title))
    for task in TASKS:
        cells = [s for s in scores if s.task == task]
        if cells:
            table.add_row(f"[bold]{NAMES[task]}[/]")
        means = [mean for mean in averages if mean.task == task]
        apart = [s for s in cells if means and s.benchmark not in means[0].cells]
        for score in cells:
            if score not in apart:
                table.add_row(*_line(score))
        for mean in means:
            _means(table, mean)
        for score in apart:
            table.add_row(*_line(score))
        if cells:
            table.add_section()
    if any(s.extra.get("all_positive") for s in scores):
        table.caption = "* every row is positive: F1 is nothing but recall there"
    return table


def _line(score: Score) -> tuple[str, ...]:
    extra = score.extra
    star = "*" if extra.get("all_positive") else ""
    return (
        f"  {escape(score.benchmark)}{star}",
        f"{score.f1:.2f}",
        f"[dim]{extra['constant_f1']:.2f}[/]",
        f"{score.precision:.1f}",
        f"{score.recall:.1f}",
        number(extra.get("fpr"), 1),
        number(extra.get("auroc"), 3),
        f"{score.n:,}",
        f"{score.unparsed:,}",
    )


def _means(table: Table, mean: Average) -> None:
    table.add_row(
        "  [bold]weighted mean[/]", f"[bold]{mean.weighted_f1:.2f}[/]", f"[dim]{mean.weighted_constant_f1:.2f}[/]",
        "", "", number(mean.weighted_fpr, 1), "", f"{mean.n:,}", f"{mean.unparsed:,}",
    )  # fmt: skip
    table.add_row(
        "  macro mean", f"{mean.macro_f1:.2f}", f"[dim]{mean.macro_constant_f1:.2f}[/]",
        "", "", "", number(mean.macro_auroc, 3), "", "",
    )  # fmt: skip
    if mean.paper_f1 is not None and abs(mean.paper_f1 - mean.weighted_f1) >= 0.005:
        table.add_row("  paper's weights", f"{mean.paper_f1:.2f}")


def points_table(scores: Sequence[Score]) -> Table | None:
    """Operating points with their 95% intervals, one line per cell; None = the guard gives no scores."""
    shown = [s for s in scores if any(s.extra.get(name) for name in POINTS)]
    if not shown:
        return None
    heads = ("TPR at 1% FPR", "TPR at 5% FPR", "FPR at 90% TPR", "area to 5%")
    table = table_of("", *heads, title="operating points, 95% intervals", folds=heads)
    for score in shown:
        cells = [_point(score.extra.get(n), 3 if n == "partial_auroc" else 1) for n in POINTS if n != "full_auroc"]
        table.add_row(f"{escape(score.benchmark)}, {NAMES[score.task]}", *cells)
    return table


def _point(found: Mapping[str, float] | None, digits: int) -> str:
    if found is None:
        return "–"
    return f"{found['value']:.{digits}f} ({found['low']:.{digits}f}–{found['high']:.{digits}f})"


def stability_table(found: Sequence[Stability]) -> Table:
    """How many verdicts changed when exchanges were judged again, one line per kind of repeat and task."""
    heads = ("what changed", "task", "exchanges", "repeats", "% of repeats that differ", "% that ever change")
    table = table_of(*heads, words=2, title="verdicts that change when asked again", folds=heads)
    for s in found:
        shares = [f"{i.value:.1f} ({i.low:.1f}–{i.high:.1f})" for i in (s.each, s.ever)]
        table.add_row(s.kind, NAMES[s.task], f"{s.rows:,}", f"{s.repeats:.1f}", *shares)
    return table


def number(value: float | None, digits: int) -> str:
    """A number, or a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"
