"""A buyer's first questions: attacks missed, false alarms on ordinary traffic, time and money.

Attacks are the harmful requests of the benchmarks; ordinary requests are the harmless ones of `everyday`. What could
not be judged counts against the guard: an attack is missed, an ordinary request is stopped. Because guards differ in
their thresholds, false alarms are also given with every threshold moved to the same share of misses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from guardreasoner.data.everyday import EVERYDAY
from guardreasoner.evaluate.contestants import Contestant
from guardreasoner.evaluate.operating_points import at_misses
from guardreasoner.evaluate.stability import Stability
from guardreasoner.evaluate.statistics import Interval, Outcomes, estimates, pooled
from guardreasoner.report.cost import Cost, Price
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
    """Dollars per 1,000 requests; None = the price, or what it is a price of, is unknown."""
    by_tokens: bool
    """Whether that is a provider's price for tokens; else the machine's for the time."""
    changed: Interval | None
    """Percent of repeated verdicts that differ from the first, over all that was repeated; None = nothing was."""


def glances(
    entrants: Sequence[Contestant],
    costs: Mapping[str, Cost],
    stability: Mapping[str, Sequence[Stability]],
    *,
    per_hour: float | None = None,
    prices: Mapping[str, Price] | None = None,
) -> list[Glance]:
    """One row per run that judged requests.

    Args:
        entrants: the runs.
        costs: label of a run to what its answers cost.
        stability: label of a run to its repeats.
        per_hour: what an hour of the machine costs.
        prices: guard to the price of its tokens.
    """
    everyday = {e.label: cell for e in entrants if (cell := e.cells.get((Task.prompt_harm, ORDINARY))) is not None}
    levels = {str(MISSES): float(MISSES)} | {
        label: 100 - estimates(cell).recall.value
        for label, cell in everyday.items()
        if cell.scores is None and not bool(cell.predicted.all())
    }
    found = [
        (found, e)
        for e in entrants
        if (found := _glance(e, everyday.get(e.label), levels, stability.get(e.label, ()))) is not None
    ]
    return [_priced(g, costs.get(g.guard), (prices or {}).get(e.run.guard), per_hour) for g, e in found]


def _glance(
    entrant: Contestant,
    cell: Outcomes | None,
    levels: Mapping[str, float],
    repeats: Sequence[Stability],
) -> Glance | None:
    rest = [c for (t, b), c in entrant.cells.items() if t is Task.prompt_harm and b != ORDINARY and c.gold.any()]
    if cell is None and not rest:
        return None
    attacks = estimates(pooled(rest)) if rest else None
    everyday = estimates(cell) if cell is not None else None
    return Glance(
        entrant.label,
        attacks.recall.complement if attacks else None,
        sum(int(c.gold.sum()) for c in rest),
        everyday.recall.complement if everyday else None,
        int(cell.gold.sum()) if cell is not None else 0,
        _per_mille(everyday.fpr) if everyday else None,
        int((~cell.gold).sum()) if cell is not None else 0,
        {} if cell is None else {
            how: _per_mille(found) for how, misses in levels.items() if (found := at_misses(cell, misses)) is not None
        },
        ms=None,
        per_1000=None,
        by_tokens=False,
        changed=_changed(repeats),
    )  # fmt: skip


def _priced(glance: Glance, cost: Cost | None, price: Price | None, per_hour: float | None) -> Glance:
    if cost is None:
        return glance
    money = cost.per_1000(price, per_hour)
    return replace(glance, ms=cost.ms_per_query, per_1000=money, by_tokens=price is not None)


def _per_mille(rate: Interval) -> Interval:
    return Interval(10 * rate.value, 10 * rate.low, 10 * rate.high)


def _changed(repeats: Sequence[Stability]) -> Interval | None:
    """The kind and task of repeat that moved most: the promise a buyer can hold the guard to."""
    return max((s.each for s in repeats), key=lambda each: each.value, default=None)
