"""Whether two guards differ: paired tests on the same rows, and the marks of a table.

The primary comparison of two guards is the difference of their weighted mean F1 on one task, with prompts resampled in
pairs. Single cells are compared too, by a randomisation test; since those are many comparisons, they are corrected by
Holm and called exploratory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from guardreasoner.errors import DataError
from guardreasoner.evaluate.statistics import (
    RESAMPLES,
    Floats,
    Outcomes,
    Weighting,
    counts,
    holm,
    mean_f1,
    resample,
    shares,
    two_sided,
)
from guardreasoner.types import Task


@dataclass(frozen=True, slots=True)
class Comparison:
    """Guard `a` minus guard `b` on the same rows."""

    a: str
    b: str
    task: Task
    benchmarks: tuple[str, ...]
    rows: int
    difference: float
    """Points of F1 (weighted mean over the benchmarks)."""
    low: float
    high: float
    p: float
    """Two-sided; corrected by Holm over `looks` comparisons."""
    deviation: float
    """Standard deviation of the bootstrapped difference."""
    exploratory: bool
    """One of many cells looked at, p from a randomisation test; the primary comparison is the weighted mean of a task,
    p and interval from one bootstrap."""
    looks: int = 1
    """Comparisons that p is corrected for: the cells of a pair, or the pairs of guards on a task. The interval is of
    this one alone."""

    def seen_from(self, a: str, b: str) -> Comparison | None:
        """The same comparison as `a` minus `b`; None = it is not about these two."""
        if {a, b} != {self.a, self.b}:
            return None
        if (a, b) == (self.a, self.b):
            return self
        return replace(self, a=a, b=b, difference=-self.difference, low=-self.high, high=-self.low)

    @property
    def significant(self) -> bool:
        """Whether chance alone would give such a difference in fewer than 1 of 20 samples of prompts."""
        return self.p < 0.05

    @property
    def detectable(self) -> float:
        """The true difference that these rows would show (p < 0.05) four times out of five: 2.8 deviations."""
        return 2.8 * self.deviation

    @property
    def sentence(self) -> str:
        """What the comparison means, in words."""
        more, less = (self.a, self.b) if self.difference >= 0 else (self.b, self.a)
        ends = (self.low, self.high) if self.difference >= 0 else (-self.high, -self.low)
        task = self.task.value.replace("_", " ")
        whole = f"the {len(self.benchmarks)} {task} cells together" if len(self.benchmarks) > 1 else f"the {task} cell"
        where = self.benchmarks[0] if self.exploratory else whole
        what = "cells" if self.exploratory else "pairs"
        corrected = f" by Holm over {self.looks} {what}" if self.looks > 1 else ""
        method = "randomisation test" if self.exploratory else "bootstrap"
        figures = f"95% interval {ends[0]:+.2f} to {ends[1]:+.2f}, {method}, p {of_p(self.p)}{corrected}"
        head = f"On {where} ({self.rows:,} rows) {more} scores {abs(self.difference):.2f} F1 points more than {less}"
        if self.difference == self.deviation == 0:
            return f"{head}: the two cannot be told apart on these rows, every resample scores them the same."
        if not self.significant:
            seen = f"a true difference under about {self.detectable:.1f} points would mostly go unseen here"
            return f"{head} ({figures}): the two cannot be told apart on these rows, and {seen}."
        note = " One of several cells looked at: exploratory." if self.exploratory else ""
        return f"{head} ({figures}): more than chance would give.{note}"


def of_p(p: float) -> str:
    """A p in words: no more digits than resampling can support."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def check_pairs(a: Outcomes, b: Outcomes) -> None:
    """Whether two guards were scored on the same rows with the same labels."""
    if (a.benchmark, a.task) != (b.benchmark, b.task):
        raise DataError(f"{a.benchmark}/{a.task} cannot be compared with {b.benchmark}/{b.task}")
    if a.ids != b.ids:
        only = len(set(a.ids) ^ set(b.ids))
        detail = f"{only} row ids are in only one of them" if only else "the rows are in another order"
        raise DataError(f"{a.guard} and {b.guard} were not run on the same rows of {a.benchmark}: {detail}")
    if not np.array_equal(a.gold, b.gold):
        differ = int((a.gold != b.gold).sum())
        raise DataError(f"the gold labels of {differ} rows of {a.benchmark} differ between {a.guard} and {b.guard}")
    if a.clusters != b.clusters:
        differ = sum(x != y for x, y in zip(a.clusters, b.clusters, strict=True))
        raise DataError(
            f"{differ} rows of {a.benchmark} have another `prompt_hash` with {a.guard} than with {b.guard}, or none: "
            "rows that share a prompt are drawn together; run both again"
        )


def compare(
    a: Sequence[Outcomes],
    b: Sequence[Outcomes],
    weights: Weighting | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """The primary comparison of two guards on one task: weighted mean F1, paired, prompts resampled.

    Args:
        a: cells of one task of one guard.
        b: the same cells of the other guard, in the same order.
        weights: per benchmark; rows of each cell when None.
    """
    if not a or len(a) != len(b):
        raise DataError("the two guards have no cells in common on this task, or not the same ones")
    for x, y in zip(a, b, strict=True):
        check_pairs(x, y)
    w = shares(a, weights)
    samples = [np.concatenate([counts(x), counts(y)]) for x, y in zip(a, b, strict=True)]

    def difference(summed: Sequence[Floats]) -> Floats:
        return mean_f1([s[:4] for s in summed], w) - mean_f1([s[4:] for s in summed], w)

    # percentile bounds and the p of the same distribution say the same; BCa's would sometimes contradict it
    value, low, high, spread = resample(samples, difference, resamples=resamples, seed=seed, method="percentile")
    alone = all(sample.shape[1] < 2 for sample in samples)  # one prompt a cell: nothing can be drawn
    bounds, deviation = ((-100.0, 100.0), 100 / 2.8) if alone else ((low[0], high[0]), spread[0].std())
    return Comparison(
        a=a[0].guard,
        b=b[0].guard,
        task=a[0].task,
        benchmarks=tuple(x.benchmark for x in a),
        rows=sum(x.n for x in a),
        difference=float(value[0]),
        low=float(bounds[0]),
        high=float(bounds[1]),
        p=1.0 if alone else max(two_sided(spread[0]), _of_few(a, b, w, resamples)),
        deviation=float(deviation),
        exploratory=False,
    )


def compare_cells(a: Sequence[Outcomes], b: Sequence[Outcomes], *, resamples: int = RESAMPLES) -> list[Comparison]:
    """Cell by cell: the bootstrap's interval of the difference of F1, p of `randomised` corrected by Holm."""
    found = []
    for x, y in zip(a, b, strict=True):
        one = compare([x], [y], resamples=resamples)
        found.append(replace(one, p=randomised([x], [y], draws=resamples), exploratory=True))
    return corrected(found)


def corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons that are looked at together, p corrected by Holm."""
    return [replace(c, p=p, looks=len(found)) for c, p in zip(found, holm([c.p for c in found]), strict=True)]


def _of_few(a: Sequence[Outcomes], b: Sequence[Outcomes], weights: Floats, draws: int) -> float:
    """The exact p of `randomised` where so few prompts differ that there is one: a bootstrap of few is too sure."""
    differ = sum(int((counts(x) - counts(y)).any(0).sum()) for x, y in zip(a, b, strict=True))
    return randomised(a, b, weights, draws=draws) if 2**differ <= draws else 0.0


def randomised(
    a: Sequence[Outcomes],
    b: Sequence[Outcomes],
    weights: Floats | None = None,
    *,
    draws: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Two-sided p of "no difference of mean F1" when two guards' answers on a prompt may change places (Yeh 2000).

    Exact where the prompts that they answer differently allow no more than `draws` exchanges, else from that many drawn
    at random. McNemar's test would speak of accuracy: two guards with the same F1, one strict and one lenient, differ
    in it.
    """
    w = shares(a, None) if weights is None else weights
    ones, twos = [counts(x) for x in a], [counts(x) for x in b]
    aparts = [d[:, d.any(0)] for d in (one - two for one, two in zip(ones, twos, strict=True))]
    prompts = sum(d.shape[1] for d in aparts)
    exact = 2**prompts <= draws
    if exact:
        swapped = np.arange(2**prompts)[:, np.newaxis] >> np.arange(prompts) & 1
    else:
        swapped = np.random.default_rng(seed).integers(0, 2, (draws, prompts))
    by_cell = np.split(swapped, np.cumsum([d.shape[1] for d in aparts])[:-1], axis=1)
    moved = [d @ swaps.T.astype(np.float64) for d, swaps in zip(aparts, by_cell, strict=True)]
    sums = [[cell.sum(-1, keepdims=True) for cell in cells] for cells in (ones, twos)]
    before, after = (mean_f1(cells, w)[0] for cells in sums)
    found = mean_f1([s - m for s, m in zip(sums[0], moved, strict=True)], w)[0]
    found = found - mean_f1([s + m for s, m in zip(sums[1], moved, strict=True)], w)[0]
    as_large = int((np.abs(found) >= np.abs(before - after) - 1e-9).sum())
    return as_large / len(found) if exact else (1 + as_large) / (1 + len(found))


class Marks(NamedTuple):
    """The guards that share the first and the second place of a column."""

    best: frozenset[str]
    runner_up: frozenset[str]


def marks(values: Mapping[str, float], p: Callable[[str, str], float | None]) -> Marks:
    """First and second places; a guard that cannot be told apart from the place's leader shares it.

    Args:
        p: p value of the comparison of two guards; None = no rows to compare (a published number), which shares only
            an equal score.
    """

    def place(left: list[str]) -> frozenset[str]:
        if not left:
            return frozenset()
        lead = left[0]
        return frozenset(g for g in left if g == lead or _same(values[lead], values[g], p(lead, g)))

    ranked = sorted(values, key=lambda g: -values[g])
    best = place(ranked)
    return Marks(best, place([g for g in ranked if g not in best]))


def _same(a: float, b: float, p: float | None) -> bool:
    return a == b if p is None else p >= 0.05
