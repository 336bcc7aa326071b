"""Corrected F1 of every guard, estimated from a stratified review, and the change that the corrections make for each.

The estimate starts from the counts under the original labels and adds, stratum by stratum, what the reviewed rows
changed, scaled from the sample to the stratum. The interval covers the review sample only, not the sampling of the
benchmark itself: rows of a sampled stratum are resampled; strata reviewed whole are known exactly; and where a sample
shows no wrong label, its stratum may still hold as many as Wilson's bound allows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardreasoner.evaluate.contestants import Contestant
from guardreasoner.evaluate.statistics import Floats, Interval, counts, rates, resample, wilson
from guardreasoner.metrics import opposite
from guardreasoner.review.disagreements import STRATA, Sealed
from guardreasoner.types import TASKS, Labels, Task


@dataclass(frozen=True, slots=True)
class Corrected:
    """One guard on one cell before and after correction."""

    guard: str
    benchmark: str
    task: Task
    original: float
    corrected: Interval
    reviewed: int
    flips: int
    """Reviewed rows whose label changed."""
    favouring: int
    """Of those, flips to this guard's answer."""


@dataclass(frozen=True, slots=True)
class Flips:
    """How often reviewers changed the label, per stratum of one cell."""

    benchmark: str
    task: Task
    stratum: str
    population: int
    reviewed: int
    flipped: int


def corrected_f1(
    entrants: Sequence[Contestant], sealed: Sequence[Sealed], said: Mapping[str, Labels], *, resamples: int = 2000
) -> list[Corrected]:
    """Every guard on every reviewed cell.

    Args:
        entrants: the runs, with their original labels.
        sealed: the review's design.
        said: row id to settled labels; rows without a settled label count as not reviewed.
        resamples: of the review sample.
    """
    found = []
    for task, benchmark in dict.fromkeys((s.task, s.benchmark) for s in sealed):
        own = [s for s in sealed if (s.task, s.benchmark) == (task, benchmark)]
        reviewed = [s for s in own if s.id in said and said[s.id][task] is not None]
        if not reviewed:
            continue
        for entrant in entrants:
            if (task, benchmark) in entrant.cells:
                found.append(_corrected(entrant, task, benchmark, reviewed=reviewed, said=said, resamples=resamples))
    return found


def _corrected(
    entrant: Contestant,
    task: Task,
    benchmark: str,
    *,
    reviewed: Sequence[Sealed],
    said: Mapping[str, Labels],
    resamples: int,
) -> Corrected:
    cell = entrant.cells[task, benchmark]
    predicted = dict(zip(cell.ids, cell.predicted, strict=True))
    base = counts(cell).sum(-1)
    flips = [s for s in reviewed if said[s.id][task] != s.gold]
    return Corrected(
        entrant.label,
        benchmark,
        task,
        original=float(rates(base)[0]),
        corrected=_interval(base, *_changes(reviewed, predicted, said, task), resamples=resamples),
        reviewed=len(reviewed),
        flips=len(flips),
        favouring=sum(s.answers.get(entrant.label) == said[s.id][task] for s in flips),
    )


def _changes(
    reviewed: Sequence[Sealed], predicted: Mapping[str, bool], said: Mapping[str, Labels], task: Task
) -> tuple[list[Floats], Floats, list[Floats]]:
    """What review moved in the four counts: by sampled rows, scaled to their stratum, each (4, rows); surely, (4,);
    and what strata whose sample showed no wrong label could hide, each (4,)."""
    positive = TASKS[task].positive
    sampled: list[Floats] = []
    fixed, unseen = np.zeros(4), [np.zeros(4)]
    for name in STRATA:
        rows = [s for s in reviewed if s.stratum == name and s.id in predicted]
        if not rows:
            continue
        change = np.array([_change(s, bool(predicted[s.id]), str(said[s.id][task]), positive) for s in rows]).T
        population = rows[0].population
        if len(rows) >= population:
            fixed += change.sum(-1)
            continue
        scaled = change * population / len(rows)
        if len(rows) > 1 and change.any():
            sampled.append(scaled)
        else:
            fixed += scaled.sum(-1)
            unseen.append(_unseen(rows, predicted, positive, population))
    return sampled, fixed, unseen


def _interval(
    base: Floats, sampled: Sequence[Floats], fixed: Floats, unseen: Sequence[Floats], *, resamples: int
) -> Interval:
    """Corrected F1 in percent, with its 95% interval over the review sample."""

    def f1(summed: Sequence[Floats]) -> Floats:
        shape = summed[0].shape[1:] if summed else ()
        total = (base + fixed).reshape(4, *([1] * len(shape))) + sum(summed, np.zeros((4, *shape)))
        return rates(np.clip(total, 0, None))[:1]

    value = float(f1([s.sum(-1) for s in sampled])[0])
    low = high = value
    if sampled:
        _, lows, highs, spread = resample(sampled, f1, resamples=resamples)
        if not (np.isfinite([lows[0], highs[0]]).all() and lows[0] <= highs[0]):
            lows, highs = np.quantile(spread, [[0.025], [0.975]], axis=-1)[:, :, 0]
        low, high = float(lows[0]), float(highs[0])
    shifts = [float(f1([*(s.sum(-1) for s in sampled), extra])[0]) - value for extra in unseen]
    return Interval(value, max(0.0, low + min(0.0, *shifts)), min(100.0, high + max(0.0, *shifts)))


def _unseen(rows: Sequence[Sealed], predicted: Mapping[str, bool], positive: str, population: int) -> Floats:
    """The most that wrong labels could change in a stratum whose sample showed none, by Wilson's bound."""
    if_flipped = [_change(s, bool(predicted[s.id]), opposite(str(s.gold), s.task), positive) for s in rows]
    most: Floats = wilson(0, len(rows)).high / 100 * (population - len(rows)) * np.mean(if_flipped, axis=0)
    return most


def _change(sealed: Sealed, predicted: bool, label: str, positive: str) -> list[float]:
    """What one corrected row moves between true and false positives, false and true negatives."""
    before, after = sealed.gold == positive, label == positive

    def place(gold: bool) -> list[float]:
        kinds = (gold and predicted, not gold and predicted, gold and not predicted, not gold and not predicted)
        return [float(kind) for kind in kinds]

    return [b - a for a, b in zip(place(before), place(after), strict=True)]


def flips(sealed: Sequence[Sealed], said: Mapping[str, Labels]) -> list[Flips]:
    """Changed labels per stratum; one that changes among agreeing rows is one that no disagreement would have found."""
    groups: dict[tuple[str, Task, str], list[Sealed]] = defaultdict(list)
    for s in sealed:
        groups[s.benchmark, s.task, s.stratum].append(s)
    found = []
    for (benchmark, task, stratum), rows in groups.items():
        reviewed = [s for s in rows if s.id in said and said[s.id][task] is not None]
        flipped = sum(said[s.id][task] != s.gold for s in reviewed)
        found.append(Flips(benchmark, task, stratum, rows[0].population, len(reviewed), flipped))
    return found
