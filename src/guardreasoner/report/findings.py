"""Everything a report says, as values: gathered by `build`, worded by `content`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from guardreasoner.evaluate.compare import Comparison
from guardreasoner.evaluate.contestants import Contestant
from guardreasoner.evaluate.operating_points import OperatingPoints, PointsDifference
from guardreasoner.evaluate.slices import Slice
from guardreasoner.evaluate.stability import Stability
from guardreasoner.evaluate.statistics import Interval
from guardreasoner.evaluate.stress import Stress
from guardreasoner.report.at_a_glance import Glance
from guardreasoner.report.cost import Cost, Price, Stage
from guardreasoner.report.tables import Standings
from guardreasoner.report.worth_reading import Mistake, SideBySide
from guardreasoner.types import Score, Task


@dataclass(frozen=True, slots=True)
class Relabelled:
    """One guard on one cell under original and corrected labels (Tables 11-13)."""

    guard: str
    benchmark: str
    task: Task
    original: Interval
    corrected: Interval
    changed: int
    """Gold labels of the cell that reviewers changed."""


@dataclass(frozen=True, slots=True)
class TaskPoints:
    """The operating points of the guards with scores on one task, over the cells that all of them have."""

    task: Task
    benchmarks: tuple[str, ...]
    guards: Mapping[str, OperatingPoints]
    differences: tuple[PointsDifference, ...]
    """Every pair, at every point that the rows allow."""


@dataclass(frozen=True, slots=True)
class Twins:
    """A model that reasons beside the one that learned the labels of the same rows alone."""

    recipe: str
    reasoning: str
    """Label of the run."""
    labels_only: str
    comparisons: tuple[Comparison, ...]
    """Paired, one per task: the one that reasons minus its twin."""
    areas: tuple[tuple[Task, tuple[str, ...], PointsDifference], ...]
    """The same of AUROC, with its cells, where both give scores."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a report says."""

    title: str
    made: str
    version: str
    standings: Standings
    glances: tuple[Glance, ...]
    per_hour: float | None
    """What an hour of the machine costs; None = unknown."""
    prices: Mapping[str, Price]
    """Guard to the price of its tokens, for the guards of this report."""
    points: tuple[TaskPoints, ...]
    twins: tuple[Twins, ...]
    stability: Mapping[str, tuple[Stability, ...]]
    """Guard to what was repeated."""
    stress: tuple[Stress, ...]
    """Guards under the transformations of the stress suite."""
    figures: Mapping[str, bytes]
    """Name to SVG."""
    slices: tuple[Slice, ...]
    mistakes: Mapping[str, tuple[Mistake, ...]]
    """Guard to its most confident wrong answers."""
    side_by_side: tuple[SideBySide, ...]
    costs: tuple[Cost, ...]
    stages: tuple[Stage, ...]
    relabelled: tuple[Relabelled, ...]
    reviewed_rows: int
    notes: tuple[str, ...]

    @property
    def contestants(self) -> tuple[Contestant, ...]:
        """The runs."""
        return self.standings.contestants

    @property
    def samples(self) -> tuple[Contestant, ...]:
        """The runs that judged a part of their benchmarks."""
        return tuple(c for c in self.contestants if c.run.limit is not None)

    def details(self, task: Task) -> list[Score]:
        """Every run's score on the cells of a task."""
        return [s for c in self.contestants for (t, _), s in c.scores.items() if t == task]
