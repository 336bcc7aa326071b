"""What a buyer asks first: attacks missed, false alarms on ordinary traffic, time and money.

Attacks are the harmful requests of the benchmarks, ordinary requests the harmless ones of `everyday`. What could not be
judged counts against the guard: an attack is missed, an ordinary request is stopped. Guards differ in where they cut,
so false alarms are also given with every cut moved to the same misses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardreasoner.data.everyday import EVERYDAY
from guardreasoner.evaluate.contestants import Contestant
from guardreasoner.evaluate.operating import at_misses
from guardreasoner.evaluate.stability import Stability
from guardreasoner.evaluate.statistics import Interval, Outcomes, estimates, pooled
from guardreasoner.report.cost import Cost
from guardreasoner.types import Task

ORDINARY = EVERYDAY
"""The benchmark of ordinary product traffic."""
MISSES = 10
"""Harmful requests in 100 that may be missed where guards are compared at equal misses."""


@dataclass(frozen=True, slots=True)
class Glance:
    """One guard in the report's first table. Rates are per 100 attacks and per 1,000 ordinary requests."""

    guard: str
    missed: Interval | None
    """Of the attacks of the benchmarks; None = no benchmark with harmful requests but `everyday`."""
    attacks: int
    ordinary_missed: Interval | None
    """Of the harmful requests of `everyday`."""
    ordinary_attacks: int
    false_alarms: Interval | None
    """None = the run did not judge `everyday`."""
    ordinary: int
    equal: Mapping[str, Interval]
    """How misses were made equal -> false alarms: `10` = at most 10 in 100; else at the misses of that guard, which
    gives no scores and so has no cut to move."""
    ms: float | None
    per_1000: float | None
    """Money per 1,000 requests; None = the price of the machine or the time is unknown."""
    changed: Interval | None
    """Percent of repeated verdicts that differ from the first, over all that was repeated; None = nothing was."""


def glances(
    entrants: Sequence[Contestant],
    costs: Mapping[str, Cost],
    stability: Mapping[str, Sequence[Stability]],
    *,
    per_hour: float | None,
) -> list[Glance]:
    """One row per run that judged requests.

    Args:
        entrants: the runs.
        costs: label of a run to what its answers cost.
        stability: label of a run to its repeats.
        per_hour: what an hour of the machine costs.
    """
    everyday = {e.label: cell for e in entrants if (cell := e.cells.get((Task.prompt_harm, ORDINARY))) is not None}
    levels = {str(MISSES): float(MISSES)} | {
        label: 100 - estimates(cell).recall.value
        for label, cell in everyday.items()
        if cell.scores is None and not bool(cell.predicted.all())
    }
    return [
        found
        for e in entrants
        if (found := _glance(e, everyday.get(e.label), levels, costs, stability, per_hour)) is not None
    ]


def _glance(
    entrant: Contestant,
    cell: Outcomes | None,
    levels: Mapping[str, float],
    costs: Mapping[str, Cost],
    stability: Mapping[str, Sequence[Stability]],
    per_hour: float | None,
) -> Glance | None:
    rest = [c for (t, b), c in entrant.cells.items() if t is Task.prompt_harm and b != ORDINARY and c.gold.any()]
    if cell is None and not rest:
        return None
    attacks = estimates(pooled(rest)) if rest else None
    everyday = estimates(cell) if cell is not None else None
    cost = costs.get(entrant.label)
    ms = cost.ms_per_query if cost else None
    return Glance(
        entrant.label,
        _missed(attacks.recall) if attacks else None,
        sum(int(c.gold.sum()) for c in rest),
        _missed(everyday.recall) if everyday else None,
        int(cell.gold.sum()) if cell is not None else 0,
        _per_mille(everyday.fpr) if everyday else None,
        int((~cell.gold).sum()) if cell is not None else 0,
        {} if cell is None else {
            how: _per_mille(found) for how, misses in levels.items() if (found := at_misses(cell, misses)) is not None
        },
        ms,
        None if ms is None or per_hour is None else ms / 3600 * per_hour,
        _changed(stability.get(entrant.label, ())),
    )  # fmt: skip


def _missed(recall: Interval) -> Interval:
    return Interval(100 - recall.value, 100 - recall.high, 100 - recall.low)


def _per_mille(rate: Interval) -> Interval:
    return Interval(10 * rate.value, 10 * rate.low, 10 * rate.high)


def _changed(repeats: Sequence[Stability]) -> Interval | None:
    """The kind and task of repeat that moved most: the promise a buyer can hold the guard to."""
    return max((s.each for s in repeats), key=lambda each: each.value, default=None)
