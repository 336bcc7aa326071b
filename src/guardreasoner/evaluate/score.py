"""From verdicts or stored texts to `Score`s: one per cell, and means per task.

Under `strict`, our verdicts count by their labels (in any answer format) and official texts by the last verdict in the
whole text. Under `official`, both count by their text, as the released script reads it. Under `strict`, what a guard
left unjudged is wrong exactly once and shown as `unparsed`, and `unread` text counts by the guard's best guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guardreasoner import metrics
from guardreasoner.data.benchmarks import BENCHMARKS
from guardreasoner.data.labelled import Column
from guardreasoner.errors import ConfigError, DataError, MissingDependency, UnknownName
from guardreasoner.evaluate.operating_points import operating_points
from guardreasoner.evaluate.predictions import Prediction, Predictions, read_predictions
from guardreasoner.evaluate.statistics import estimates, outcomes
from guardreasoner.types import SETTLED, TASKS, Rule, Score, Task

PAPER_WEIGHTS: Mapping[tuple[str, Task], int] = {
    (b.name, cell.task): cell.paper_n for b in BENCHMARKS.values() for cell in b.cells
}
"""Weights of the paper's averages (Table 8; 499 for XSTestResponseRefusal is its slip, and reproduces its numbers)."""


def score_file(
    path: str | Path,
    benchmark: str,
    *,
    task: str | None = None,
    rule: Rule = "strict",
    data_dir: str | Path | None = None,
    mapping: Mapping[str, Column] | None = None,
    partial: bool = False,
) -> tuple[list[Score], tuple[str, ...]]:
    """Score one file of stored predictions.

    Args:
        path: `RUN/verdicts/<Benchmark>.jsonl` or an official `generated_predictions.jsonl`.
        benchmark: a name of the table, or a labelled file of the user's own.
        data_dir: where the official benchmark files are.
        partial: accept verdicts of only some of the rows.

    Returns:
        One score per task that the benchmark asks and the guard answers, and notes on what could not be checked.
    """
    found = read_predictions(path, benchmark, data_dir, mapping=mapping, partial=partial)
    tasks = found.tasks if task is None else (find_task(task),)
    if wrong := [t for t in tasks if t not in found.tasks]:
        raise ConfigError(f"{found.benchmark} does not ask {wrong[0]}; it asks {', '.join(found.tasks)}")
    scores = [s for t in tasks if (s := score_cell(found, t, rule=rule)) is not None]
    if not scores:
        raise DataError(f"guard {found.guard} answers no task of {found.benchmark}", file=str(path))
    return scores, found.notes


def find_task(name: str) -> Task:
    """A task by name; `prompt`, `response` and hyphens are understood."""
    plain = name.lower().replace("-", "_")
    plain = {"prompt": "prompt_harm", "response": "response_harm"}.get(plain, plain)
    if plain not in TASKS:
        raise UnknownName("task", name, (t.value for t in TASKS))
    return Task(plain)


def score_cell(
    predictions: Predictions, task: Task, *, rule: Rule = "strict", weight: int | None = None
) -> Score | None:
    """`score_rows` with the interval of F1 and, where the guard gives scores, its operating points.

    Both need the extra `eval`; without it the score is whole but for them.
    """
    score = score_rows(predictions, task, rule=rule, weight=weight)
    if score is None or rule != "strict":
        return score
    cell = outcomes(predictions, task)
    try:
        f1 = estimates(cell).f1
    except MissingDependency:
        return score
    points = operating_points([cell])
    more = {} if points is None else {**points.as_dict(), "positives": points.positives, "negatives": points.negatives}
    return replace(score, ci=(f1.low, f1.high), extra={**score.extra, **more})


def score_rows(
    predictions: Predictions, task: Task, *, rule: Rule = "strict", weight: int | None = None
) -> Score | None:
    """The score of one cell; None = the cell has no annotated row, or the guard does not do this task.

    Args:
        weight: rows that this cell counts as in means, if only a sample of it was judged (`--limit`).
    """
    if task not in predictions.answered:
        return None
    rows = [row for row in predictions.rows if row.gold[task] is not None]
    gold = [row.gold[task] for row in rows]
    tally = _tally(rows, gold, task, rule=rule, guard=predictions.guard)
    counts, floor = tally.confusion, metrics.constant(gold, task)
    extra: dict[str, Any] = {
        "scored": len(tally.gold),
        "dropped": tally.dropped,
        "doubled": tally.doubled,
        "other_case": tally.other_case,
        "unread": sum(row.verdict.status == "unread" for row in rows),
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
        "tn": counts.tn,
        "fpr": counts.fpr,
        "accuracy": counts.accuracy,
        "constant_f1": floor.f1,
        "all_positive": floor.fp == 0,
        "weight": weight or len(rows),
        "paper_weight": PAPER_WEIGHTS.get((predictions.benchmark, task)),
        **_ranking(rows, gold, task),
        **_cost(rows),
    }
    return Score(
        predictions.benchmark, task, predictions.guard, rule, counts.f1, counts.precision, counts.recall,
        n=tally.n, unparsed=tally.unparsed, extra=extra,
    )  # fmt: skip


def _tally(
    rows: Sequence[Prediction], gold: Sequence[str | None], task: Task, *, rule: Rule, guard: str
) -> metrics.Tally:
    if rule == "strict":
        return metrics.from_labels([row.label(task) for row in rows], gold, task)
    texts = [row.verdict.text for row in rows]
    if not any(metrics.find_labels(text, t) for text in texts for t in TASKS):
        raise DataError(
            f"rule official reads an answer block (`Request: …`), and no answer of {guard} holds one; use --rule strict"
        )
    return metrics.official(texts, gold, task)


def _ranking(rows: Sequence[Prediction], gold: Sequence[str | None], task: Task) -> Mapping[str, Any]:
    scores = [row.verdict.scores.get(task.value) for row in rows]
    if all(score is None for score in scores):
        return {}
    calibrated = all(row.verdict.calibrated for row in rows if row.verdict.status in SETTLED)
    try:
        return {**metrics.ranking(scores, gold, task), "calibrated": calibrated}
    except MissingDependency as error:
        return {"ranking": str(error)}


def _cost(rows: Sequence[Prediction]) -> Mapping[str, Any]:
    usage = [row.verdict.usage for row in rows]
    if not any(u.latency_ms or u.completion_tokens for u in usage):
        return {}
    return {
        "completion_tokens": sum(u.completion_tokens for u in usage) / len(usage),
        "latency_ms": sum(u.latency_ms for u in usage) / len(usage),
    }


@dataclass(frozen=True, slots=True)
class Average:
    """Means of one task over the scored cells; F1 always comes with the constant's."""

    task: Task
    guard: str
    cells: tuple[str, ...]
    """Benchmarks that went in."""
    weighted_f1: float
    """By the rows of each cell."""
    paper_f1: float | None
    """By the paper's weights; None when a cell is not the paper's."""
    macro_f1: float
    weighted_constant_f1: float
    macro_constant_f1: float
    weighted_fpr: float | None
    macro_auroc: float | None
    n: int
    unparsed: int
    complete: bool
    """Whether all of the paper's cells of this task are there."""


def averaged(benchmarks: Iterable[str]) -> frozenset[str]:
    """The benchmarks that a mean is taken over: the paper's, if there are any.

    `everyday` and users' own files ask something else, so beside the paper's they enter no mean.
    """
    names = frozenset(benchmarks)
    return names & BENCHMARKS.keys() or names


def averages(scores: Sequence[Score]) -> list[Average]:
    """Means per task (and guard) of scores of one rule, in task order, over the `averaged` cells."""
    found = []
    for guard in dict.fromkeys(s.guard for s in scores):
        for task in TASKS:
            cells = [s for s in scores if s.task == task and s.guard == guard]
            if kept := averaged(s.benchmark for s in cells):
                found.append(_average([s for s in cells if s.benchmark in kept], task, guard))
    return found


def _average(cells: Sequence[Score], task: Task, guard: str) -> Average:
    weights = [float(s.extra.get("weight") or s.n) for s in cells]
    paper = [s.extra.get("paper_weight") for s in cells]
    floor = [float(s.extra["constant_f1"]) for s in cells]
    f1 = [s.f1 for s in cells]
    fpr = [(s.extra["fpr"], w) for s, w in zip(cells, weights, strict=True) if s.extra.get("fpr") is not None]
    auroc = [s.extra["auroc"] for s in cells if s.extra.get("auroc") is not None]
    mine = {s.benchmark for s in cells}
    return Average(
        task,
        guard,
        tuple(s.benchmark for s in cells),
        weighted_f1=metrics.mean(f1, weights) or 0.0,
        paper_f1=metrics.mean(f1, [float(w) for w in paper if w]) if all(paper) else None,
        macro_f1=metrics.mean(f1) or 0.0,
        weighted_constant_f1=metrics.mean(floor, weights) or 0.0,
        macro_constant_f1=metrics.mean(floor) or 0.0,
        weighted_fpr=metrics.mean([v for v, _ in fpr], [w for _, w in fpr]),
        macro_auroc=metrics.mean(auroc),
        n=sum(s.n for s in cells),
        unparsed=sum(s.unparsed for s in cells),
        complete=mine == {b for b, t in PAPER_WEIGHTS if t == task},
    )


def as_row(score: Score) -> dict[str, Any]:
    """A score as one flat JSON object, in the order of the contract."""
    head = {
        "benchmark": score.benchmark,
        "task": score.task.value,
        "rule": score.rule,
        "f1": score.f1,
        "precision": score.precision,
        "recall": score.recall,
        "n": score.n,
        "scored": score.extra["scored"],
        "dropped": score.extra["dropped"],
        "doubled": score.extra["doubled"],
        "unparsed": score.unparsed,
        "guard": score.guard,
    }
    return head | {k: v for k, v in score.extra.items() if k not in head}
