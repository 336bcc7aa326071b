"""Operating points: what a guard catches at an acceptable false-alarm rate, and its false alarms at a given recall.

F1 describes one threshold, and a guard's threshold is rarely chosen for the best F1. These numbers use the whole curve
of scores, without interpolation: the best threshold that keeps the promise on these rows. A row without a score counts
as wrong at every threshold, like an answer that could not be read under the strict rule. Several cells are pooled,
because an operator sets one threshold, not one per benchmark.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from guardreasoner.errors import DataError
from guardreasoner.evaluate.statistics import RESAMPLES, Floats, Interval, Outcomes, two_sided, wilson

BATCH = 250
"""Resamples that are held in memory together."""
PARTIAL = 0.05
"""False-positive rate up to which the partial area is taken."""
LEAST_POSITIVES = 10


@dataclass(frozen=True, slots=True)
class OperatingPoints:
    """Points of the curve of one guard with 95% intervals; None = too few rows to speak of such a rate."""

    tpr_at_fpr1: Interval | None
    """Percent of positives caught with at most 1% of negatives flagged; wants 100 negatives."""
    tpr_at_fpr5: Interval | None
    """The same with at most 5%; wants 20 negatives."""
    fpr_at_tpr90: Interval | None
    """Percent of negatives flagged where at least 90% of positives are caught; wants 10 positives."""
    partial_auroc: Interval | None
    """Area up to a false-positive rate of 5%, scaled so that 0.5 is chance and 1 is perfect (McClish 1989)."""
    full_auroc: Interval | None
    """The whole area, in which a row without a score is wrong at every threshold, unlike in the `auroc` of a score."""
    positives: int
    negatives: int

    def as_dict(self) -> dict[str, dict[str, float] | None]:
        """The points as plain values: `{value, low, high}` or None."""
        return {name: None if (at := getattr(self, name)) is None else at._asdict() for name in POINTS}


POINTS = tuple(f.name for f in fields(OperatingPoints) if f.name not in ("positives", "negatives"))


@dataclass(frozen=True, slots=True)
class PointsDifference:
    """Guard `a` minus guard `b` at one operating point, on the same rows."""

    a: str
    b: str
    point: str
    difference: float
    low: float
    high: float
    p: float
    """Two-sided; of many looks, corrected by Holm (`report.build`)."""
    rows: int

    def seen_from(self, a: str, b: str) -> PointsDifference | None:
        """The same difference as `a` minus `b`; None = it is not about these two."""
        if (a, b) == (self.a, self.b):
            return self
        if (b, a) != (self.a, self.b):
            return None
        return replace(self, a=a, b=b, difference=-self.difference, low=-self.high, high=-self.low)


def operating_points(cells: Sequence[Outcomes], *, resamples: int = RESAMPLES) -> OperatingPoints | None:
    """The operating points of one guard over the pooled rows of some cells; None = it gives no scores.

    Intervals are percentiles of a bootstrap over prompts, drawn within each cell. These statistics are order
    statistics, for which BCa's acceleration means nothing.
    """
    if not cells or any(c.scores is None for c in cells):
        return None
    positives = int(sum(c.gold.sum() for c in cells))
    negatives = sum(c.n for c in cells) - positives
    known = _known(positives, negatives)
    if not any(known):
        return OperatingPoints(None, None, None, None, None, positives, negatives)
    value, spread = _bootstrap(cells, resamples)
    low, high = _ends(spread)
    caught, passed = _prompts(cells, positive=True), _prompts(cells, positive=False)
    ends = zip(value, low, high, known, (caught, caught, passed, 0, 0), strict=True)
    found = [_interval(v, x, y, n) if k else None for v, x, y, k, n in ends]
    return OperatingPoints(**dict(zip(POINTS, found, strict=True)), positives=positives, negatives=negatives)


def compare_points(
    a: Sequence[Outcomes], b: Sequence[Outcomes], *, resamples: int = RESAMPLES
) -> list[PointsDifference]:
    """The paired differences of two guards at each point that the rows allow; empty = one of them has no scores."""
    if not a or any(c.scores is None for c in (*a, *b)):
        return []
    if [(c.benchmark, c.ids) for c in a] != [(c.benchmark, c.ids) for c in b]:
        raise DataError(f"{a[0].guard} and {b[0].guard} were not scored on the same rows")
    (one, drawn), (two, also) = _bootstrap(a, resamples), _bootstrap(b, resamples)
    spread = drawn - also
    low, high = _ends(spread)
    positives, rows = int(sum(c.gold.sum() for c in a)), sum(c.n for c in a)
    return [
        PointsDifference(a[0].guard, b[0].guard, name, float(x - y), float(lo), float(hi), two_sided(each), rows)
        for name, x, y, lo, hi, each, known in zip(
            POINTS, one, two, low, high, spread, _known(positives, rows - positives), strict=True
        )
        if known
    ]


def at_misses(cell: Outcomes, misses: float, *, resamples: int = RESAMPLES) -> Interval | None:
    """Percent of negatives flagged with the threshold set so that at most `misses` percent of positives are missed.

    None = no scores, or too few positives to set it.
    """
    if cell.scores is None or int(cell.gold.sum()) < LEAST_POSITIVES or cell.gold.all():
        return None

    def found(fpr: Floats, tpr: Floats) -> Floats:
        return 100 * _fpr_at(fpr, tpr, 1 - misses / 100)[np.newaxis]

    value, spread = _bootstrap([cell], resamples, found)
    low, high = _ends(spread)
    return _interval(value[0], low[0], high[0], _prompts([cell], positive=False))


def _ends(spread: Floats) -> Floats:
    """Both ends of a 95% interval; NaN, in silence, where the rows have no such point in any resample."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanpercentile(spread, (2.5, 97.5), axis=1), dtype=float)


def _prompts(cells: Sequence[Outcomes], *, positive: bool) -> int:
    """Prompts with a row of that gold."""
    return sum(len({k for k, gold in zip(c.clusters, c.gold, strict=True) if gold == positive}) for c in cells)


def _interval(value: float, low: float, high: float, prompts: int) -> Interval:
    """The bootstrap's interval, at each end at least as wide as Wilson's on as many prompts: no false alarm at all is
    no proof of none, and of two or three the bootstrap knows too little."""
    ends = wilson(round(float(value) / 100 * prompts), prompts) if prompts else Interval(value, value, value)
    return Interval(float(value), float(min(low, ends.low)), float(max(high, ends.high)))


def _known(positives: int, negatives: int) -> tuple[bool, ...]:
    """Which points the rows can speak of: a rate of 1% is nothing on 30 negatives."""
    return tuple(positives >= LEAST_POSITIVES and negatives >= least for least in (100, 20, 1, 20, 1))


def _points(fpr: Floats, tpr: Floats) -> Floats:
    """The points from curves (..., thresholds), shape (5, ...)."""
    return np.stack(
        [
            100 * _tpr_at(fpr, tpr, 0.01),
            100 * _tpr_at(fpr, tpr, 0.05),
            100 * _fpr_at(fpr, tpr, 0.9),
            _partial_area(fpr, tpr, PARTIAL),
            _partial_area(fpr, tpr, 1.0),
        ]
    )


_EXACT = 1e-9
"""What rounding may do to a rate."""


def _tpr_at(fpr: Floats, tpr: Floats, most: float) -> Floats:
    last = (fpr <= most + _EXACT).sum(-1, keepdims=True) - 1  # curves rise, so the last that fits is the best
    found: Floats = np.take_along_axis(tpr, np.maximum(last, 0), -1)[..., 0]
    return found


def _fpr_at(fpr: Floats, tpr: Floats, least: float) -> Floats:
    first = (tpr < least - _EXACT).sum(-1, keepdims=True)
    found: Floats = np.take_along_axis(fpr, np.minimum(first, fpr.shape[-1] - 1), -1)[..., 0]
    return found


def _partial_area(fpr: Floats, tpr: Floats, most: float) -> Floats:
    x0, x1, y0, y1 = fpr[..., :-1], fpr[..., 1:], tpr[..., :-1], tpr[..., 1:]
    width = x1 - x0
    cut = (most - x0) / np.where(width > 0, width, 1.0)
    end = np.where((x1 > most) & (width > 0), y0 + np.clip(cut, 0, 1) * (y1 - y0), y1)
    area = ((np.minimum(x1, most) - np.minimum(x0, most)) * (y0 + end) / 2).sum(-1)
    chance = most * most / 2
    scaled: Floats = 0.5 * (1 + (area - chance) / (most - chance))
    return scaled


def _bootstrap(cells: Sequence[Outcomes], resamples: int, statistic: object = None) -> tuple[Floats, Floats]:
    """Values (points,) and their distribution (points, resamples), prompts drawn with replacement within each cell."""
    of = statistic or _points
    assert callable(of)
    curve = _Curve(cells)
    value: Floats = of(*curve.at(np.ones((1, curve.rows))))[:, 0]
    rng = np.random.default_rng(0)
    drawn = []
    for start in range(0, resamples, BATCH):
        drawn.append(of(*curve.at(curve.draw(rng, min(BATCH, resamples - start)))))
    return value, np.concatenate(drawn, axis=1)


class _Curve:
    """The rows of some cells in the order of their scores, ready to be weighted."""

    def __init__(self, cells: Sequence[Outcomes]) -> None:
        gold = np.concatenate([c.gold for c in cells])
        given = np.concatenate([np.asarray(c.scores, np.float64) for c in cells])
        scores = np.where(np.isnan(given), np.where(gold, -1.0, 2.0), given)  # unscored: wrong at every threshold
        order = np.argsort(-scores, kind="stable")
        self.gold, self.rows = gold[order], len(order)
        self.ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
        """The last row of each distinct score."""
        self.prompts = [np.unique(np.asarray(c.clusters), return_inverse=True)[1] for c in cells]
        self.order = order

    def draw(self, rng: np.random.Generator, times: int) -> Floats:
        """How often each row is drawn, in the order of scores, (times, rows)."""
        parts = []
        for prompts in self.prompts:
            n = int(prompts.max()) + 1
            parts.append(rng.multinomial(n, np.full(n, 1 / n), size=times)[:, prompts])
        return np.concatenate(parts, axis=1).astype(np.float64)[:, self.order]

    def at(self, weights: Floats) -> tuple[Floats, Floats]:
        """False- and true-positive rate at every threshold, from none flagged to all, each (times, thresholds)."""
        summed = [np.cumsum(weights * kind, axis=1)[:, self.ends] for kind in (~self.gold, self.gold)]
        empty = np.any([s[:, -1:] == 0 for s in summed], axis=0)  # a draw without negatives or positives says nothing
        found = []
        for s in summed:
            total = np.where(empty, np.nan, s[:, -1:])
            found.append(np.concatenate([np.zeros((len(weights), 1)), s], axis=1) / total)
        return found[0], found[1]
