"""How certain a score is: rows of one cell as arrays, and 95% intervals clustered by prompt.

Resampling draws prompts, not rows: SafeRLHF has 2,000 rows over 549 prompts, and rows that share a prompt are not
independent. scipy computes the intervals (`scipy.stats.bootstrap`, BCa; `binomtest`); this module brings rows into the
form that scipy wants. Scores are percentages; an answer that could not be read counts as wrong exactly once (rule
`strict`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import DataError, need
from guardreasoner.evaluate.predictions import Predictions
from guardreasoner.metrics import from_labels
from guardreasoner.types import TASKS, Task

RESAMPLES = 2000
BATCH = 250
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Statistic = Callable[[Sequence[Floats]], Floats]
"""From summed counts, one array (..., resamples) per cell, to values (values, resamples)."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What one guard answered on the rows of one cell, in a form that arithmetic can use."""

    benchmark: str
    task: Task
    guard: str
    ids: tuple[str, ...]
    gold: Bools
    """True = the positive label."""
    predicted: Bools
    """True = the positive label; an unread answer is the opposite of gold."""
    clusters: tuple[str, ...]
    """What makes two rows the same prompt (a hash of it); all different = rows are independent."""
    scores: Floats | None = None
    """P(positive) in [0, 1], NaN where unknown; None = the guard has none."""
    unparsed: int = 0
    """Rows whose answer could not be read; of a part it is not known and 0."""

    def __post_init__(self) -> None:
        columns = (self.gold, self.predicted, self.clusters, *(() if self.scores is None else (self.scores,)))
        assert {len(column) for column in columns} == {self.n}, "every column has one value for each row"

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.ids)

    def part(self, keep: Bools) -> Outcomes:
        """Some of the rows."""
        return self._at(np.flatnonzero(keep))

    def only(self, ids: Sequence[str]) -> Outcomes:
        """The rows with these ids, in this order."""
        if tuple(ids) == self.ids:
            return self
        at = {identity: i for i, identity in enumerate(self.ids)}
        return self._at(np.array([at[i] for i in ids], np.int64))

    def like(self, other: Outcomes) -> Outcomes:
        """In the order of another guard's rows where they are the same rows; else as it is."""
        return self.only(other.ids) if set(self.ids) == set(other.ids) else self

    def _at(self, index: NDArray[np.int64]) -> Outcomes:
        return Outcomes(
            self.benchmark,
            self.task,
            self.guard,
            tuple(self.ids[i] for i in index),
            self.gold[index],
            self.predicted[index],
            tuple(self.clusters[i] for i in index),
            None if self.scores is None else self.scores[index],
        )

    @property
    def all_positive(self) -> bool:
        """Whether every gold label is positive, so that F1 is nothing but a bent recall."""
        return bool(self.gold.all())

    @property
    def unique_prompts(self) -> bool:
        """Whether no two rows share a prompt."""
        return len(set(self.clusters)) == len(self.clusters)


def outcomes(predictions: Predictions, task: Task) -> Outcomes:
    """The annotated rows of one cell, read by the strict rule."""
    rows = [row for row in predictions.rows if row.gold[task] is not None]
    gold = [str(row.gold[task]) for row in rows]
    said = [row.label(task) for row in rows]
    given = [row.verdict.scores.get(task.value) for row in rows]
    read = from_labels(said, gold, task)
    positive = TASKS[task].positive
    return Outcomes(
        benchmark=predictions.benchmark,
        task=task,
        guard=predictions.guard,
        ids=tuple(row.id for row in rows),
        gold=np.array([g == positive for g in gold], bool),
        predicted=np.array([label == positive for label in read.predicted], bool),
        clusters=tuple(row.prompt_hash or row.id for row in rows),
        scores=None
        if not any(s is not None for s in given)
        else np.array([np.nan if s is None else s for s in given], np.float64),
        unparsed=read.unparsed,
    )


class Interval(NamedTuple):
    """An estimate and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def complement(self) -> Interval:
        """Percent of the cases that this is not: what is missed, of what is caught."""
        return Interval(100 - self.value, 100 - self.high, 100 - self.low)


class Estimates(NamedTuple):
    """The four numbers of one cell."""

    f1: Interval
    precision: Interval
    recall: Interval
    fpr: Interval


Weighting = Mapping[str, float]
"""Benchmark name to weight."""


def counts(cell: Outcomes) -> Floats:
    """True and false positives, false and true negatives of each prompt, shape (4, prompts)."""
    _, code = np.unique(np.asarray(cell.clusters), return_inverse=True)
    kinds = (
        cell.gold & cell.predicted,
        ~cell.gold & cell.predicted,
        cell.gold & ~cell.predicted,
        ~cell.gold & ~cell.predicted,
    )
    return np.stack([np.bincount(code, kind).astype(np.float64) for kind in kinds])


def rates(summed: Floats) -> Floats:
    """F1, precision, recall and false-positive rate in percent, shape (4, ...), from counts (4, ...); 0/0 is 0."""
    tp, fp, fn, tn = summed
    pairs = ((2 * tp, 2 * tp + fp + fn), (tp, tp + fp), (tp, tp + fn), (fp, fp + tn))
    return np.stack([100 * np.divide(a, b, out=np.zeros_like(a), where=b > 0) for a, b in pairs])


def constant_f1(cell: Outcomes) -> float:
    """F1 of answering the positive label always: the floor that no F1 should be shown without."""
    positives = float(cell.gold.sum())
    return 100 * 2 * positives / (positives + cell.n) if positives else 0.0


def resample(
    samples: Sequence[Floats],
    statistic: Statistic,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    method: Literal["BCa", "percentile"] = "BCa",
) -> tuple[Floats, Floats, Floats, Floats]:
    """Value, lower and upper bound, and bootstrap distribution of a statistic of several independent cells.

    Args:
        samples: per cell its counts, shape (kinds, prompts); prompts are drawn with replacement within each cell.
        statistic: from the summed counts of each cell to one or more values.
        method: of the bounds; BCa is NaN where the distribution is degenerate.

    Returns:
        Arrays of shape (values,), (values,), (values,) and (values, resamples).
    """
    stats = need("scipy.stats", "eval")
    sums = [sample.sum(-1, keepdims=True) for sample in samples]
    free = [i for i, sample in enumerate(samples) if sample.shape[1] > 1]  # one prompt alone cannot be resampled

    def of(*index: NDArray[np.int64], axis: int = -1) -> Floats:
        drawn = [
            np.broadcast_to(s.reshape(-1, *([1] * (index[0].ndim - 1))), (len(s), *np.delete(index[0].shape, axis)))
            for s in sums
        ]
        for i, at in zip(free, index, strict=True):
            drawn[i] = np.stack([kind.take(at).sum(axis) for kind in samples[i]])
        return statistic(drawn)

    value = statistic([s[:, 0] for s in sums])
    if not free:
        nothing = np.full_like(value, np.nan)
        return value, nothing, nothing, np.repeat(value[:, np.newaxis], resamples, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a degenerate distribution has no BCa interval: callers see NaN and say so
        result = stats.bootstrap(
            tuple(np.arange(samples[i].shape[1]) for i in free),
            of,
            vectorized=True,
            n_resamples=resamples,
            batch=BATCH,
            method=method,
            rng=np.random.default_rng(seed),
        )
    interval = result.confidence_interval
    return value, interval.low, interval.high, result.bootstrap_distribution


def bounded(value: float, low: float, high: float) -> Interval | None:
    """A bootstrapped interval; None where it is degenerate."""
    return Interval(float(value), float(low), float(high)) if np.isfinite([low, high]).all() and low < high else None


def estimates(cell: Outcomes, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimates:
    """F1, precision, recall and false-positive rate of one cell with intervals clustered by prompt.

    Where prompts are unique, the three rates have Wilson's interval, which also holds for a handful of errors. F1, and
    rates over rows that share prompts, are bootstrapped; where that is degenerate (no error at all would give an
    interval of no width), Wilson's over the prompts takes its place.
    """
    sample = counts(cell)
    closed = _closed_form(sample)
    if cell.n == 0 or sample.shape[1] < 2 or (cell.all_positive and cell.unique_prompts):
        return closed
    value, low, high, _ = resample([sample], lambda s: rates(s[0]), resamples=resamples, seed=seed)
    drawn = [bounded(v, a, b) or w for v, a, b, w in zip(value, low, high, closed, strict=True)]
    return Estimates(drawn[0], *(closed[1:] if cell.unique_prompts else drawn[1:]))


def _closed_form(sample: Floats) -> Estimates:
    """Wilson's intervals from counts per prompt, shape (4, prompts)."""
    value = rates(sample.sum(-1))
    tp, fp, fn, tn = sample
    precision, recall, fpr = (share_of(hits, of) for hits, of in ((tp, tp + fp), (tp, tp + fn), (fp, fp + tn)))
    if not (fp + tn).any():
        precision = Interval(float(value[1]), float(value[1]), 100.0)  # no negative row: 100 as soon as one is found
    ends = [_harmonic(precision[i], recall[i]) for i in (1, 2)]
    return Estimates(Interval(float(value[0]), ends[0], ends[1]), precision, recall, fpr)


def wilson(hits: int, n: int) -> Interval:
    """A share in percent with Wilson's interval; nothing known (0 to 100) where there is nothing to count."""
    if n == 0:
        return Interval(0.0, 0.0, 100.0)
    ci = need("scipy.stats", "eval").binomtest(hits, n).proportion_ci(method="wilson")
    return Interval(100 * hits / n, 100 * float(ci.low), 100 * float(ci.high))


def share_of(hits: Floats, of: Floats) -> Interval:
    """100 * hits / of with Wilson's interval over prompts, both counted per prompt, (prompts,).

    Rows that share a prompt count as one: without an error to resample nothing says how alike they are.
    """
    prompts = int((of > 0).sum())
    share = float(hits.sum() / of.sum()) if prompts else 0.0
    return wilson(round(share * prompts), prompts)._replace(value=100 * share)


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


def pooled(cells: Sequence[Outcomes]) -> Outcomes:
    """Several cells of one guard and task as one; prompts stay apart by benchmark."""
    if not cells:
        raise DataError("there is no cell to pool")
    scored = all(c.scores is not None for c in cells)
    return Outcomes(
        "+".join(c.benchmark for c in cells),
        cells[0].task,
        cells[0].guard,
        tuple(f"{c.benchmark}/{i}" for c in cells for i in c.ids),
        np.concatenate([c.gold for c in cells]),
        np.concatenate([c.predicted for c in cells]),
        tuple(f"{c.benchmark}/{k}" for c in cells for k in c.clusters),
        np.concatenate([np.asarray(c.scores) for c in cells]) if scored else None,
        sum(c.unparsed for c in cells),
    )


def shares(cells: Sequence[Outcomes], weights: Weighting | None) -> Floats:
    """The weight of each cell in a mean, summing to 1: its rows unless given."""
    raw = [float(weights[c.benchmark]) if weights else float(c.n) for c in cells]
    return np.array([w / sum(raw) for w in raw])


def mean_f1(summed: Sequence[Floats], weights: Floats) -> Floats:
    """Weighted mean of F1, shape (1, ...), from the summed counts of each cell."""
    each = np.stack([rates(s)[0] for s in summed])
    mean: Floats = np.tensordot(weights, each, axes=1)[np.newaxis]
    return mean


def weighted_f1(
    cells: Sequence[Outcomes], weights: Weighting | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The weighted mean of the cells' F1 with its interval; weights default to the rows of each cell."""
    if not cells:
        raise DataError("there is no cell to average")
    w = shares(cells, weights)
    value, low, high, _ = resample([counts(c) for c in cells], lambda s: mean_f1(s, w), resamples=resamples, seed=seed)
    if drawn := bounded(value[0], low[0], high[0]):
        return drawn
    closed = [_closed_form(counts(c)).f1 for c in cells]
    ends = [sum(float(x) * c[i] for x, c in zip(w, closed, strict=True)) for i in (1, 2)]
    return Interval(float(value[0]), *ends)


def two_sided(spread: Floats) -> float:
    """p of "no difference" from bootstrapped differences; draws that say nothing (NaN) are left out.

    2,000 draws cannot show a p under 1/1000, and a correction for many comparisons needs such: where no draw crosses
    0, p is the tail of a normal with the mean and deviation of the draws, if that is smaller.
    """
    kept = spread[~np.isnan(spread)]
    rarer = min(int((kept <= 0).sum()), int((kept >= 0).sum()))
    p = min(1.0, 2 * (1 + rarer) / (len(kept) + 1))
    if rarer == 0 and kept.std() > 0:
        p = min(p, float(2 * need("scipy.stats", "eval").norm.sf(abs(kept.mean()) / kept.std())))
    return p


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for many looks (Holm 1979); scipy has none."""
    order = np.argsort(p_values)
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted
