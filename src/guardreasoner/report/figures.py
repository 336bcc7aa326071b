"""The figures of a report, as SVG: bars with intervals, curves, confusion, reasoning length, training.

matplotlib draws them without a display. Names are drawn literally (no mathematics) and letters become paths, so a
figure needs no font and holds no text that could be markup. No judged text enters a figure.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from guardreasoner.errors import need
from guardreasoner.evaluate.cascades import CascadeCurve
from guardreasoner.evaluate.contestants import Contestant
from guardreasoner.evaluate.statistics import Outcomes
from guardreasoner.evaluate.stress import Stress
from guardreasoner.report.cost import Stage
from guardreasoner.report.sections.numbers import TASK_NAMES
from guardreasoner.report.tables import TaskTable
from guardreasoner.types import Task
from guardreasoner.yaml_files import in_package

T = TypeVar("T")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#5f5f5f")
"""Colours that colour-blind readers can distinguish (Okabe and Ito)."""
STYLE = in_package("report/templates/report.mplstyle")
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
"""matplotlib repeats each text in a comment beside its paths."""
LEAST_SCORED = 10
"""Rows with a score that a curve needs."""


def _draw(paint: Callable[[Any], None], width: float, height: float) -> bytes:
    matplotlib = need("matplotlib", "eval")
    backend, figure_module = need("matplotlib.backends.backend_svg", "eval"), need("matplotlib.figure", "eval")
    with matplotlib.rc_context(fname=STYLE):
        figure = figure_module.Figure(figsize=(width, height), layout="constrained")
        backend.FigureCanvasSVG(figure)
        paint(figure)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return _COMMENT.sub(b"", out.getvalue())


def _panels(items: Sequence[T], paint: Callable[[Any, T], None], *, width: float, height: float) -> bytes:
    """A panel for each item, side by side; `width` is that of one."""

    def all_of_them(figure: Any) -> None:
        for axes, item in zip(figure.subplots(1, len(items), squeeze=False)[0], items, strict=True):
            paint(axes, item)
            axes.grid()

    return _draw(all_of_them, width * len(items), height)


def colours(names: Sequence[str]) -> dict[str, str]:
    """One colour per guard, the same in every figure."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def bars(table: TaskTable, colour: Mapping[str, str]) -> bytes:
    """F1 per benchmark with 95% intervals; a line across each group is the constant's F1."""
    lines = table.ours()
    floor = next(line for line in table.lines if line.kind == "constant")

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        width = 0.8 / max(1, len(lines))
        for i, line in enumerate(lines):
            known = [(x, line.entries[b]) for x, b in enumerate(table.every) if b in line.entries]
            where = [x + (i - (len(lines) - 1) / 2) * width for x, _ in known]
            value = [e.value for _, e in known]
            error = [[e.value - (e.low or 0.0) for _, e in known], [(e.high or 0.0) - e.value for _, e in known]]
            axes.bar(where, value, width * 0.92, color=colour[line.name], label=line.name)
            axes.errorbar(
                where, value, np.clip(error, 0, None), fmt="none", ecolor="#20242b", elinewidth=0.9, capsize=2
            )
        for x, b in enumerate(table.every):
            level = floor.entries[b].value
            axes.hlines(level, x - 0.46, x + 0.46, color="#20242b", linestyles="dotted", linewidth=1.2,
                        label="always positive" if x == 0 else None)  # fmt: skip
        axes.set_xticks(range(len(table.every)), [_column(b, table) for b in table.every])
        axes.set_ylim(0, 100)
        axes.set_ylabel("F1 (%)")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=max(2, int(width_inches / 1.8)))

    width_inches = max(5.0, 1.5 + 1.35 * len(table.every))
    return _draw(paint, width_inches, 3.2 + 0.2 * (len(lines) // 3))


def _column(benchmark: str, table: TaskTable) -> str:
    words = "\n".join(split_name(benchmark))
    return f"{words}\n(recall)" if benchmark in table.all_positive else words


def split_name(benchmark: str) -> list[str]:
    """The words of a name such as OpenAIModeration."""
    return re.split(r"(?<=[a-z])(?=[A-Z][a-z])|(?<=[a-z][A-Z]{2})(?=[A-Z][a-z])", benchmark)


def _pooled(entrant: Contestant, task: Task) -> tuple[Any, Any] | None:
    """Gold and scores of all rows of a task that have a score."""
    cells: list[Outcomes] = [c for (t, _), c in entrant.cells.items() if t == task and c.scores is not None]
    if not cells:
        return None
    gold = np.concatenate([c.gold for c in cells])
    scores = np.concatenate([c.scores for c in cells if c.scores is not None])
    keep = ~np.isnan(scores)
    gold, scores = gold[keep], scores[keep]
    return (gold, scores) if len(gold) >= LEAST_SCORED and 0 < gold.sum() < len(gold) else None


def scored(entrants: Sequence[Contestant], task: Task) -> list[tuple[str, Any, Any]]:
    """Label, gold and scores of the guards that have scores on a task."""
    found = [(c.label, _pooled(c, task)) for c in entrants]
    return [(label, *pair) for label, pair in found if pair is not None]


def precision_recall(entrants: Sequence[Contestant], tasks: Sequence[Task], colour: Mapping[str, str]) -> bytes:
    """Precision against recall over all rows of each task; the dotted line is the share of positives."""
    metrics = need("sklearn.metrics", "eval")

    def paint(axes: Any, task: Task) -> None:
        for label, gold, scores in scored(entrants, task):
            precision, recall, _ = metrics.precision_recall_curve(gold, scores)
            area = metrics.average_precision_score(gold, scores)
            axes.plot(recall, precision, color=colour[label], label=f"{label} ({area:.3f})", linewidth=1.5)
            axes.axhline(gold.mean(), color=colour[label], linestyle="dotted", linewidth=0.8)
        axes.set(title=TASK_NAMES[task], xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.legend(loc="lower left", title="area", title_fontsize=8)

    return _panels(tasks, paint, width=3.4, height=3.3)


def reliability(entrants: Sequence[Contestant], tasks: Sequence[Task], colour: Mapping[str, str]) -> bytes:
    """Share of positives against mean score in ten bins of equal mass; on the diagonal scores mean what they say."""
    calibration = need("sklearn.calibration", "eval")

    def paint(axes: Any, task: Task) -> None:
        axes.plot([0, 1], [0, 1], color="#8a8f98", linestyle="dotted", linewidth=1)
        for label, gold, scores in scored(entrants, task):
            share, mean = calibration.calibration_curve(gold, np.clip(scores, 0, 1), n_bins=10, strategy="quantile")
            axes.plot(mean, share, color=colour[label], label=label, marker="o", markersize=3.5, linewidth=1.2)
        axes.set(title=TASK_NAMES[task], xlim=(0, 1), ylim=(0, 1.02), xlabel="score", ylabel="share of positives")
        axes.legend(loc="upper left")

    return _panels(tasks, paint, width=3.4, height=3.3)


def confusion(entrants: Sequence[Contestant], tasks: Sequence[Task]) -> bytes:
    """Counts of gold against answer, one square per guard and task; shade = share of its gold row."""

    def paint(figure: Any) -> None:
        grid = figure.subplots(len(entrants), len(tasks), squeeze=False)
        for row, entrant in zip(grid, entrants, strict=True):
            for axes, task in zip(row, tasks, strict=True):
                cells = [c for (t, _), c in entrant.cells.items() if t == task]
                axes.set_title(f"{entrant.label}\n{TASK_NAMES[task]}", fontsize=8)
                axes.set_xticks([0, 1], ["neg.", "pos."], fontsize=7)
                axes.set_yticks([0, 1], ["neg.", "pos."], fontsize=7)
                axes.tick_params(length=0)
                counts = np.zeros((2, 2))
                for cell in cells:
                    np.add.at(counts, (cell.gold.astype(int), cell.predicted.astype(int)), 1)
                shade = counts / np.maximum(1, counts.sum(1, keepdims=True))
                axes.imshow(shade, cmap="Blues", vmin=0, vmax=1.25)
                for (g, p), count in np.ndenumerate(counts):
                    ink = "white" if shade[g, p] > 0.7 else "#20242b"
                    axes.text(p, g, f"{int(count):,}", ha="center", va="center", color=ink, fontsize=8)
                axes.set_xlabel("answer", fontsize=7)
                axes.set_ylabel("gold", fontsize=7)

    return _draw(paint, 2.1 * len(tasks) + 0.3, 2.15 * len(entrants) + 0.2)


def lengths(points: Mapping[str, Sequence[tuple[float, float, float, float]]], colour: Mapping[str, str]) -> bytes:
    """Share of right answers against words of reasoning: guard to (words, share, low, high) per fifth of its traces."""

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for label, own in points.items():
            x, y, low, high = (np.array(v) for v in zip(*own, strict=True))
            error = [np.clip(y - low, 0, None), np.clip(high - y, 0, None)]
            axes.errorbar(x, y, error, color=colour[label], label=label, marker="o", markersize=4, capsize=2)
        axes.set(xlabel="words of reasoning (median of each fifth)", ylabel="right answers (%)")
        axes.set_ylim(top=101)
        axes.grid()
        axes.legend(loc="best")

    return _draw(paint, 5.6, 3.2)


def cascades(curves: Sequence[CascadeCurve]) -> bytes:
    """F1 against the share of rows that the second guard judges, one panel per task; dotted = rows drawn at random."""

    def paint(axes: Any, curve: CascadeCurve) -> None:
        share = [100 * p.share for p in curve.points]
        low, high = [p.f1.low for p in curve.points], [p.f1.high for p in curve.points]
        axes.fill_between(share, low, high, color=COLOURS[0], alpha=0.15, linewidth=0)
        axes.plot(share, [p.f1.value for p in curve.points], color=COLOURS[0], marker="o", markersize=3.5,
                  linewidth=1.4, label="nearest the cut")  # fmt: skip
        axes.plot(share, [p.at_random for p in curve.points], color=COLOURS[7], linestyle="dotted",
                  linewidth=1.2, label="at random")  # fmt: skip
        axes.set(title=TASK_NAMES[curve.task], xlabel=f"rows judged by {curve.second} (%)", ylabel="F1 (%)")
        axes.legend(loc="lower right")

    return _panels(curves, paint, width=3.4, height=3.1)


def stress(results: Sequence[Stress]) -> bytes:
    """Attack success and false alarms per family with 95% intervals, one panel each, a colour per guard."""
    families = list(dict.fromkeys(c.family for r in results for c in r.families))
    colour = colours([r.guard for r in results])

    def paint(figure: Any) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, field, title in zip(panels, ("success", "alarms"), ("Attacks pass", "False alarms"), strict=True):
            for place, result in enumerate(results):
                for cell in result.families:
                    rate, y = getattr(cell, field), families.index(cell.family) + 0.7 * place / len(results)
                    axes.plot([rate.low, rate.high], [y, y], color=colour[result.guard], linewidth=1.2)
                    axes.plot([rate.value], [y], "o", color=colour[result.guard], markersize=3.5,
                              label=result.guard if cell is result.families[0] else None)  # fmt: skip
            axes.set(title=title, xlabel="% with 95% interval", xlim=(-2, 102))
            axes.set_yticks(range(len(families)), families)
            axes.grid(axis="x")
        panels[0].invert_yaxis()
        panels[1].legend(loc="best")

    return _draw(paint, 7.2, 0.42 * len(families) + 1.2)


def training(stages: Sequence[Stage]) -> bytes:
    """Loss against step, one panel per stage that has a log, with a running mean."""

    def paint(axes: Any, stage: Stage) -> None:
        step, loss = np.array(stage.curve).T
        axes.plot(step, loss, color="#b9c2cf", linewidth=0.9)
        width = max(1, len(loss) // 20)
        smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
        axes.plot(step[width - 1 :], smooth, color=COLOURS[0], linewidth=1.6)
        axes.set(xlabel="step", ylabel="loss")
        axes.set_title(f"{stage.folder.parent.name} {stage.name}", fontsize=9)

    return _panels([s for s in stages if len(s.curve) > 1], paint, width=3.2, height=2.8)
