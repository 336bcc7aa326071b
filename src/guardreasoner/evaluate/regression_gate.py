"""A regression gate for continuous integration: is the new run at most `fail_below` F1 points worse, task by task?

It tests non-inferiority, not the absence of a significant loss: a task passes only if the lower end of the 95% interval
of (run minus baseline) is above minus the margin. A small or noisy benchmark cannot show that however good the run
is, so a task that does not pass is either `fail` (its rows could have shown non-inferiority and did not, or the loss is
significant) or `undecided` (too few rows for this margin; the smallest margin that they support is printed). Both stop
a pipeline, but only `fail` says that the guard got worse; with an unchanged guard that happens in at most 5% of runs,
all tasks together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from guardreasoner.errors import DataError, need
from guardreasoner.evaluate.compare import Comparison, compare
from guardreasoner.evaluate.statistics import RESAMPLES, Outcomes
from guardreasoner.ranges import check_ranges
from guardreasoner.types import Task

Outcome = Literal["pass", "fail", "undecided"]
ALARM = 0.04
"""Share of runs of an unchanged guard in which the gate may call `fail`, all tasks together. The promise is 5%: on
cells of a few hundred rows the bootstrap is a little liberal (5.6% measured when this was 0.05)."""


@dataclass(frozen=True, slots=True)
class GateTask:
    """The gate's decision on one task."""

    comparison: Comparison
    margin: float
    """Points of F1 that may be lost."""
    supported: float
    """The smallest margin with which an unchanged guard would pass on these rows in all but the allowed alarms."""
    outcome: Outcome

    @property
    def sentence(self) -> str:
        """The decision in words."""
        c = self.comparison
        found = f"{c.task}: {c.difference:+.2f} F1 points against {c.b} (95% interval {c.low:+.2f} to {c.high:+.2f})"
        if self.outcome == "pass":
            return f"pass, {found}: a loss of more than {self.margin:g} points is ruled out."
        if self.outcome == "fail":
            return f"FAIL, {found}: a loss of more than {self.margin:g} points is not ruled out."
        return (
            f"UNDECIDED, {found}: {c.rows:,} rows are too few, or the two runs differ on too many of them, to rule out "
            f"a loss of {self.margin:g} points; use a margin of at least {self.supported:.1f}, or more rows."
        )


@dataclass(frozen=True, slots=True)
class Gate:
    """The decisions on all tasks that both runs answered."""

    tasks: tuple[GateTask, ...]

    @property
    def outcome(self) -> Outcome:
        """`fail` if any task failed, else `undecided` if any is, else `pass`."""
        found = {t.outcome for t in self.tasks}
        return "fail" if "fail" in found else "undecided" if "undecided" in found else "pass"

    @property
    def passed(self) -> bool:
        """Whether a pipeline may continue."""
        return self.outcome == "pass"

    @property
    def sentences(self) -> list[str]:
        """One sentence per task."""
        return [t.sentence for t in self.tasks]


def gate(
    run: Sequence[Outcomes],
    baseline: Sequence[Outcomes],
    fail_below: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Gate:
    """Whether a run is non-inferior to a baseline, per task.

    Args:
        run: cells of the new run, any order, any tasks.
        baseline: cells of the run to keep up with; cells that only one of them has are an error.
        fail_below: points of weighted mean F1 that may be lost, above 0.
    """
    check_ranges(fail_below=fail_below, seed=seed)
    ours = {(c.task, c.benchmark): c for c in run}
    theirs = {(c.task, c.benchmark): c for c in baseline}
    if ours.keys() != theirs.keys() or not ours:
        odd = ", ".join(sorted(f"{b} ({t})" for t, b in ours.keys() ^ theirs.keys())) or "there are none"
        raise DataError(f"run and baseline must have the same cells; only in one of them: {odd}")
    tasks = [t for t in Task if any(key[0] == t for key in ours)]
    found = []
    for task in tasks:
        keys = sorted(k for k in ours if k[0] == task)
        old = [theirs[k].like(ours[k]) for k in keys]
        pair = compare([ours[k] for k in keys], old, resamples=resamples, seed=seed)
        found.append(_decide(pair, fail_below, alarm=ALARM / len(tasks)))
    return Gate(tuple(found))


def _decide(pair: Comparison, margin: float, *, alarm: float) -> GateTask:
    z = need("scipy.stats", "eval").norm.ppf
    half = max(pair.difference - pair.low, pair.deviation * float(z(0.975)))
    supported = half + pair.deviation * float(z(1 - alarm))
    if pair.low >= -margin:
        return GateTask(pair, margin, supported, "pass")
    worse = pair.difference < 0 and pair.p < 2 * alarm
    return GateTask(pair, margin, supported, "fail" if worse or supported <= margin else "undecided")
