"""Runs side by side in the shape of the paper's tables: F1 per benchmark and task, means, marks, intervals.

Every table shows the constant's F1. A column whose rows are all positive is marked, because its F1 is nothing but
recall. Guards that a paired test cannot tell apart share best and runner-up. Published numbers stand beside ours, are
compared only by value, and carry their notes. Cells of which a guard saw the train split (or the prompt pool) are
tagged, and the mean is also given without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from guardreasoner.data.benchmarks import BENCHMARKS
from guardreasoner.data.published import f1_rows
from guardreasoner.errors import DataError
from guardreasoner.evaluate.compare import Comparison, Marks, compare, compare_cells, corrected, marks
from guardreasoner.evaluate.contestants import Contestant
from guardreasoner.evaluate.score import averaged
from guardreasoner.evaluate.seen_in_training import Tag, exposure
from guardreasoner.evaluate.statistics import Interval, Outcomes, constant_f1, estimates, weighted_f1
from guardreasoner.report.worth_reading import opinionated
from guardreasoner.types import TASKS, Task

EXPLORATORY_RESAMPLES = 1000
Kind = Literal["ours", "constant", "published"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One number of a table."""

    value: float
    low: float | None = None
    high: float | None = None
    mark: Literal["", "best", "runner-up"] = ""
    tag: Tag | None = None
    notes: tuple[str, ...] = ()
    wrong: bool = False
    rows: int | None = None
    """Rows it is over where that is a sample of the column."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One guard's row."""

    name: str
    kind: Kind
    entries: Mapping[str, Entry]
    """Benchmark to entry; absent = not measured."""
    mean: Entry | None = None
    """Weighted over all columns that enter means; None unless the guard has all of them."""
    shared: Entry | None = None
    """The same over those that every run has."""
    foreign: float | None = None
    """The same over those that no run saw in training, neither train split nor prompt pool."""
    known: bool = True
    """Whether its training data are known."""
    sample: bool = False
    """The run judged a part of its benchmarks (`--limit`): it takes no place among full runs and published numbers."""
    ranked: bool = True
    """Whether it can take a place: samples and guards that look at nothing cannot."""


@dataclass(frozen=True, slots=True)
class TaskTable:
    """All guards on one task."""

    task: Task
    columns: tuple[str, ...]
    """What means are taken over (`score.averaged`)."""
    apart: tuple[str, ...]
    """Columns in no mean: `everyday` and files of one's own with positives beside the paper's benchmarks."""
    rows: Mapping[str, int]
    """Rows of each column."""
    weights: Mapping[str, float]
    all_positive: frozenset[str]
    shared: tuple[str, ...]
    """Columns that every run has."""
    foreign: tuple[str, ...]
    """Of these, the ones that no run saw in training; empty when none saw any."""
    lines: tuple[Standing, ...]
    paper_columns: int
    """Cells that the paper has for this task."""

    @property
    def every(self) -> tuple[str, ...]:
        """All columns; a file without positives, where F1 is always 0, is none."""
        return (*self.columns, *self.apart)

    def ours(self) -> list[Standing]:
        """The lines of runs."""
        return [line for line in self.lines if line.kind == "ours"]


@dataclass(frozen=True, slots=True)
class Standings:
    """Everything that the tables of a report say."""

    contestants: tuple[Contestant, ...]
    tables: tuple[TaskTable, ...]
    comparisons: tuple[Comparison, ...]
    """Primary: one per pair of runs and task."""
    looks: tuple[Comparison, ...]
    """Exploratory: one per pair of runs and cell."""
    warnings: tuple[str, ...] = field(default=())
    """What could not be compared, and why."""


def standings(entrants: Sequence[Contestant], *, progress: Callable[[str], None] | None = None) -> Standings:
    """Tables, comparisons and marks of some runs."""
    tell = progress or (lambda _: None)
    if not any(c.cells for c in entrants):
        raise DataError("no run holds a scored cell")
    tables: list[TaskTable] = []
    primary: list[Comparison] = []
    looks: list[Comparison] = []
    warnings: list[str] = []
    for task in TASKS:
        holders = [c for c in entrants if any(t == task for t, _ in c.cells)]
        if not holders:
            continue
        own = [frozenset(b for t, b in c.cells if t == task) for c in holders]
        common = frozenset.intersection(*own) & averaged(frozenset.union(*own))
        means: list[Comparison] = []
        pairs: list[Comparison] = []
        for i, a in enumerate(holders):
            for b in holders[i + 1 :]:
                tell(f"{task}: {a.label} against {b.label}")
                try:
                    found, cells, on_common = _compare(a, b, task, common)
                except DataError as error:
                    warnings.append(f"not compared on {task}: {error}")
                    continue
                means.append(found)
                looks += cells
                pairs.append(on_common)
        tell(f"{task}: intervals")
        told = frozenset(c.label for c in holders if opinionated(c))
        primary += _corrected(means, told)
        places = _Tests(
            cells={(c.benchmarks[0], c.a, c.b): c.p for c in looks if c.task == task},
            mean={(c.a, c.b): c.p for c in primary if c.task == task},
            shared={(c.a, c.b): c.p for c in _corrected(pairs, told)},
        )
        tables.append(_table(task, holders, places))
    return Standings(tuple(entrants), tuple(tables), tuple(primary), tuple(looks), tuple(dict.fromkeys(warnings)))


def _corrected(found: Sequence[Comparison], told: frozenset[str]) -> list[Comparison]:
    """p corrected over the pairs that the report speaks of: a guard that looks at nothing is in none of them."""
    spoken = [c for c in found if {c.a, c.b} <= told]
    return [*corrected(spoken), *(c for c in found if c not in spoken)]


@dataclass(frozen=True, slots=True)
class _Tests:
    """p values by pair of guards: of cells, of the mean over what both have, of the mean over what all have."""

    cells: Mapping[tuple[str, str, str], float]
    mean: Mapping[tuple[str, str], float]
    shared: Mapping[tuple[str, str], float]


def _compare(
    a: Contestant, b: Contestant, task: Task, common: frozenset[str]
) -> tuple[Comparison, list[Comparison], Comparison]:
    pairs = {k[1]: _common(a.cells[k], b.cells[k]) for k in a.cells if k[0] == task and k in b.cells}
    weights = {name: a.weights[task, name] for name in pairs}

    def over(names: frozenset[str]) -> Comparison:
        part = [pair for name, pair in pairs.items() if name in names]
        return compare([x for x, _ in part], [y for _, y in part], weights)

    found = over(averaged(pairs))
    on_common = over(common) if common and common != averaged(pairs) else found
    ours, theirs = [x for x, _ in pairs.values()], [y for _, y in pairs.values()]
    return found, compare_cells(ours, theirs, resamples=EXPLORATORY_RESAMPLES), on_common


def _common(a: Outcomes, b: Outcomes) -> tuple[Outcomes, Outcomes]:
    """Both on the rows that both judged, in one order: one may be a sample, or have had rows asked again at the end."""
    theirs = set(b.ids)
    both = [i for i in a.ids if i in theirs]
    if not both:
        raise DataError(f"{a.guard} and {b.guard} have no row of {a.benchmark} in common")
    return a.only(both), b.only(both)


def _table(task: Task, holders: Sequence[Contestant], tests: _Tests) -> TaskTable:
    present = {b for c in holders for t, b in c.cells if t == task}
    every = tuple([b for b in BENCHMARKS if b in present] + sorted(present - set(BENCHMARKS)))
    columns = tuple(b for b in every if b in averaged(present))
    first = {b: max((c for c in holders if (task, b) in c.cells), key=lambda c: c.cells[task, b].n) for b in every}
    weights = {b: first[b].weights[task, b] for b in every}
    shared = tuple(b for b in columns if all((task, b) in c.cells for c in holders))
    seen = {b for c in holders for b in c.seen or ()}
    foreign = tuple(b for b in shared if b not in seen) if seen & set(columns) else ()
    over = _Means(every, columns, shared, foreign, weights)
    lines = [_our_line(c, task, over) for c in holders]
    floor = {b: Entry(constant_f1(first[b].cells[task, b])) for b in every}
    constant = _valued("always positive", "constant", floor, over=over, known=True)
    published = _published(task, over)
    everything = _marked([*lines, constant, *published], every, tests)
    return TaskTable(
        task,
        columns,
        apart=tuple(b for b in every if b not in columns and first[b].cells[task, b].gold.any()),
        rows={b: first[b].cells[task, b].n for b in every},
        weights=weights,
        all_positive=frozenset(b for b in every if first[b].cells[task, b].all_positive),
        shared=shared,
        foreign=over.foreign,
        lines=tuple(everything),
        paper_columns=sum(cell.task == task for b in BENCHMARKS.values() for cell in b.cells),
    )


@dataclass(frozen=True, slots=True)
class _Means:
    """What the means of a table are taken over."""

    every: tuple[str, ...]
    """Every column, also those in no mean."""
    columns: tuple[str, ...]
    shared: tuple[str, ...]
    foreign: tuple[str, ...]
    weights: Mapping[str, float]


def _our_line(entrant: Contestant, task: Task, over: _Means) -> Standing:
    cells = {b: entrant.cells[task, b] for b in over.every if (task, b) in entrant.cells}
    sample = entrant.run.limit is not None
    entries = {
        b: replace(_entry(estimates(cell).f1, (entrant.seen or {}).get(b)), rows=cell.n if sample else None)
        for b, cell in cells.items()
    }
    line = _valued(entrant.label, "ours", entries, over=over, known=entrant.seen is not None)

    def mean(columns: Sequence[str]) -> Entry | None:
        there = [cells[b] for b in columns if b in cells]
        return _entry(weighted_f1(there, over.weights)) if there and len(there) == len(columns) else None

    return replace(
        line,
        mean=mean(over.columns),
        shared=mean(over.shared),
        sample=sample,
        ranked=not sample and opinionated(entrant),
    )


def _entry(interval: Interval, tag: Tag | None = None) -> Entry:
    return Entry(interval.value, interval.low, interval.high, tag=tag)


def _valued(name: str, kind: Kind, entries: Mapping[str, Entry], *, over: _Means, known: bool) -> Standing:
    """A line whose means are values without intervals."""

    def mean(columns: Sequence[str]) -> Entry | None:
        if not columns or any(b not in entries for b in columns):
            return None
        total = sum(over.weights[b] * entries[b].value for b in columns) / sum(over.weights[b] for b in columns)
        return Entry(total, wrong=any(entries[b].wrong for b in columns))

    foreign = mean(over.foreign)
    return Standing(
        name,
        kind,
        entries,
        mean=mean(over.columns),
        shared=mean(over.shared),
        foreign=foreign.value if foreign else None,
        known=known,
    )


def _published(task: Task, over: _Means) -> list[Standing]:
    found = []
    for guard, cells in f1_rows(task).items():
        seen = exposure(guard)
        entries = {
            b: Entry(cell.value, tag=(seen or {}).get(b), notes=cell.notes, wrong=cell.wrong)
            for b in over.every
            if (cell := cells.get(b)) is not None and cell.value is not None
        }
        if entries:
            found.append(_valued(guard, "published", entries, over=over, known=seen is not None))
    return found


def _marked(lines: Sequence[Standing], columns: Sequence[str], tests: _Tests) -> list[Standing]:
    """Best and runner-up of each column and mean; the constant and cells known to be wrong take no place."""

    def places(values: Mapping[str, float], p: Mapping[tuple[str, str], float]) -> Marks:
        return marks(values, lambda x, y: p.get((x, y), p.get((y, x))))

    given: dict[str, Marks] = {}
    for b in columns:
        values = {_key(ln): ln.entries[b].value for ln in lines if _placed(ln, b)}
        given[b] = places(values, {(x, y): p for (c, x, y), p in tests.cells.items() if c == b})
    for kind, p in (("mean", tests.mean), ("shared", tests.shared)):
        means = [(ln, getattr(ln, kind)) for ln in lines if _competes(ln)]
        values = {_key(ln): e.value for ln, e in means if e is not None and not e.wrong}
        given[kind] = places(values, p)

    def mark(entry: Entry | None, column: str, line: Standing) -> Entry | None:
        if entry is None or not _competes(line) or entry.wrong:
            return entry
        place = given[column]
        key = _key(line)
        return replace(entry, mark="best" if key in place.best else "runner-up" if key in place.runner_up else "")

    return [
        replace(
            ln,
            entries={b: m for b, e in ln.entries.items() if (m := mark(e, b, ln)) is not None},
            mean=mark(ln.mean, "mean", ln),
            shared=mark(ln.shared, "shared", ln),
        )
        for ln in lines
    ]


def _key(line: Standing) -> str:
    """A published guard and a run of it may have one name; only runs are known to the tests."""
    return line.name if line.kind == "ours" else f"{line.kind}:{line.name}"


def _placed(line: Standing, column: str) -> bool:
    return _competes(line) and column in line.entries and not line.entries[column].wrong


def _competes(line: Standing) -> bool:
    return line.kind != "constant" and line.ranked
