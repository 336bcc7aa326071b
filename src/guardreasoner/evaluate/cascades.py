"""What two guards in a row would score, computed from two finished runs over the same rows.

The first guard judges everything; the rows whose scores are nearest to its threshold go to the second. Scores alone
choose those rows, never gold, so the curve needs no rows to fit on. A second curve passes on as many random rows: the
gap between the two is what the first guard's scores are worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import DataError
from guardreasoner.evaluate.compare import check_pairs
from guardreasoner.evaluate.contestants import Contestant
from guardreasoner.evaluate.score import averaged
from guardreasoner.evaluate.statistics import Interval, Outcomes, counts, mean_f1, shares, weighted_f1
from guardreasoner.types import TASKS, Task

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
"""Of the rows of a task that go to the second guard."""
Floats = NDArray[np.float64]
_EDGE = 1e-6


@dataclass(frozen=True, slots=True)
class Point:
    """The cascade at one share."""

    share: float
    """Of the rows of the task, as asked for."""
    escalated: int
    """Rows that go to the second guard."""
    band: tuple[float, float]
    """Scores of the first guard between which (exclusive) the second decides: what `CascadeGuard` wants."""
    f1: Interval
    """Mean F1 weighted by rows, in percent."""
    at_random: float
    """The same mean, were as many rows of each cell drawn at random (expected counts)."""


@dataclass(frozen=True, slots=True)
class CascadeCurve:
    """F1 of one task against the share of its rows that the second guard judges."""

    task: Task
    first: str
    second: str
    cells: tuple[str, ...]
    rows: int
    points: tuple[Point, ...]


def cascade_curves(
    first: Contestant, second: Contestant, *, steps: Sequence[float] = SHARES, resamples: int = 2000
) -> list[CascadeCurve]:
    """One curve per task of which both runs judged the same rows.

    Args:
        resamples: of the intervals (whole prompts are drawn).
    """
    found = []
    for task in TASKS:
        names = [b for t, b in first.cells if t == task and (t, b) in second.cells]
        kept = [first.cells[task, b] for b in names if b in averaged(names)]
        pairs = [(one, second.cells[task, one.benchmark].like(one)) for one in kept]
        for one, two in pairs:
            check_pairs(one, two)
            if one.scores is None or np.isnan(one.scores).any():
                raise DataError(
                    f"{one.guard} has no score for every row of {one.benchmark}; the first guard needs them"
                )
        if pairs:
            found.append(_curve(task, pairs, steps, resamples))
    if not found:
        raise DataError(f"{first.label} and {second.label} have no cell in common")
    return found


def _curve(
    task: Task, pairs: Sequence[tuple[Outcomes, Outcomes]], steps: Sequence[float], resamples: int
) -> CascadeCurve:
    scores = np.concatenate([np.asarray(one.scores) for one, _ in pairs])
    said = np.concatenate([one.predicted for one, _ in pairs])
    cut = _cut(scores, said)
    distance = np.abs(_logit(scores) - _logit(np.array([cut]))[0])
    order = np.argsort(distance, kind="stable")
    ends = np.cumsum([0, *(one.n for one, _ in pairs)])
    points = []
    for share in steps:
        chosen = np.zeros(len(scores), bool)
        chosen[order[: round(share * len(scores))]] = True
        cells = [
            replace(one, predicted=np.where(chosen[a:b], two.predicted, one.predicted))
            for (one, two), a, b in zip(pairs, ends, ends[1:], strict=False)
        ]
        points.append(
            Point(
                share,
                int(chosen.sum()),
                _band(scores, chosen, cut),
                weighted_f1(cells, resamples=resamples),
                _at_random(pairs, share),
            )
        )
    names = tuple(one.benchmark for one, _ in pairs)
    return CascadeCurve(task, pairs[0][0].guard, pairs[0][1].guard, names, len(scores), tuple(points))


def _cut(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """The score at which the first guard's answer turns: between its lowest positive and its highest negative."""
    low = scores[~positive].max(initial=0.0)
    high = scores[positive].min(initial=1.0)
    return float((low + high) / 2)


def _logit(p: Floats) -> Floats:
    inside = np.clip(p, _EDGE, 1 - _EDGE)
    found: Floats = np.log(inside / (1 - inside))
    return found


def _band(scores: Floats, chosen: NDArray[np.bool_], cut: float) -> tuple[float, float]:
    """An open interval that holds the chosen scores: it ends half-way to the nearest ones outside."""
    if not chosen.any():
        return cut, cut
    low, high = scores[chosen].min(), scores[chosen].max()
    below, above = scores[scores < low].max(initial=0.0), scores[scores > high].min(initial=1.0)
    return float((low + below) / 2), float((high + above) / 2)


def _at_random(pairs: Sequence[tuple[Outcomes, Outcomes]], share: float) -> float:
    """F1 of the expected counts when each row goes to the second guard with probability `share`."""
    summed = [(1 - share) * counts(one).sum(-1) + share * counts(two).sum(-1) for one, two in pairs]
    return float(mean_f1([s[:, np.newaxis] for s in summed], shares([one for one, _ in pairs], None))[0, 0])
