"""A report over finished runs: everything it says is gathered here once, then written as Markdown and as HTML.

OUT/report.html      one self-contained page: no script, no external resource, judged text escaped and veiled
OUT/report.md        the tables and sentences, without judged text; figures beside it
OUT/figures/*.svg
OUT/report.json      the numbers of the tables
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from guardreasoner import __version__
from guardreasoner.evaluate.run import correct
from guardreasoner.evaluate.runs import Run, open_run
from guardreasoner.evaluate.slices import Slice, slices
from guardreasoner.evaluate.statistics import Interval, estimates, outcomes, weighted_f1
from guardreasoner.records import dumps, now, write_atomic
from guardreasoner.report import figures
from guardreasoner.report.contestants import Contestant, contestants
from guardreasoner.report.cost import (
    Corpus,
    Cost,
    Stage,
    published_costs,
    read_corpora,
    read_stages,
    run_cost,
)
from guardreasoner.report.tables import Standings, standings
from guardreasoner.report.worth_reading import (
    Mistake,
    SideBySide,
    length_points,
    mistakes,
    opinionated,
    side_by_side,
)
from guardreasoner.review.corrections import latest, settle
from guardreasoner.types import TASKS, Score, Task

Progress = Callable[[str], None]


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
class Report:
    """What a report says."""

    title: str
    made: str
    version: str
    standings: Standings
    figures: Mapping[str, bytes]
    """Name to SVG."""
    slices: tuple[Slice, ...]
    mistakes: Mapping[str, tuple[Mistake, ...]]
    """Guard to its most confident wrong answers."""
    side_by_side: tuple[SideBySide, ...]
    costs: tuple[Cost, ...]
    stages: tuple[Stage, ...]
    corpora: tuple[Corpus, ...]
    relabelled: tuple[Relabelled, ...]
    reviewed_rows: int
    notes: tuple[str, ...]

    @property
    def contestants(self) -> tuple[Contestant, ...]:
        """The runs."""
        return self.standings.contestants

    def details(self, task: Task) -> list[Score]:
        """Every run's score on the cells of a task."""
        return [s for c in self.contestants for (t, _), s in c.scores.items() if t == task]


def build(
    runs: Sequence[str | Path],
    *,
    data_dir: str | Path | None = None,
    title: str = "Guard evaluation",
    errors: int = 24,
    pairs: int = 12,
    corrections: Sequence[str | Path] = (),
    training: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Report:
    """Gather a report.

    Args:
        runs: run folders of ours, or official prediction folders.
        data_dir: folder with `benchmarks/`, for the texts of errors; without it they are named by id only.
        title: of the page.
        errors: wrong answers to show per run.
        pairs: exchanges to show side by side.
        corrections: files of `Review` records; scores are then given under both labels.
        training: folders with training stages, for curves, hours and corpus statistics.
        progress: called with what is being done.

    Raises:
        DataError: a folder holds no run, or no stage.
    """
    tell = progress or (lambda _: None)
    opened = [open_run(folder, data_dir) for folder in runs]
    entrants = contestants(opened)
    found = standings(entrants, progress=tell)
    stages = tuple(read_stages(training))
    tell("figures")
    reviewed = settle(latest(corrections)) if corrections else {}
    costs = [c for run, e in zip(opened, entrants, strict=True) if (c := run_cost(run, e.label)) is not None]
    return Report(
        title,
        now(),
        __version__,
        found,
        _figures(found, stages),
        tuple(slices(entrants)),
        {e.label: tuple(mistakes(e, errors)) for e in entrants if opinionated(e)},
        tuple(side_by_side(entrants, pairs)),
        (*costs, *published_costs()),
        stages,
        tuple(read_corpora(training)),
        tuple(_relabelled(entrants, corrections)) if corrections else (),
        len(reviewed),
        tuple(_notes(opened, entrants)) + found.warnings,
    )


def _figures(found: Standings, stages: Sequence[Stage]) -> dict[str, bytes]:
    entrants = found.contestants
    colour = figures.colours([e.label for e in entrants])
    drawn = {f"f1_{table.task.value}": figures.bars(table, colour) for table in found.tables}
    tasks = [table.task for table in found.tables]
    if scored := [t for t in tasks if figures.scored(entrants, t)]:
        drawn["precision_recall"] = figures.precision_recall(entrants, scored, colour)
        drawn["reliability"] = figures.reliability(entrants, scored, colour)
    drawn["confusion"] = figures.confusion(entrants, tasks)
    if points := {e.label: p for e in entrants if (p := length_points(e))}:
        drawn["reasoning_length"] = figures.lengths(points, colour)
    if any(len(stage.curve) > 1 for stage in stages):
        drawn["training"] = figures.training(stages)
    return drawn


def _relabelled(entrants: Sequence[Contestant], corrections: Sequence[str | Path]) -> list[Relabelled]:
    """Cells with corrected labels, and the weighted mean of every task in which there is one (Tables 7, 11-13)."""
    found = []
    for entrant in entrants:
        corrected = {s.benchmark: s for s in correct(entrant.run.stored, corrections)[0]}
        for task in TASKS:
            cells = {b: cell for (t, b), cell in entrant.cells.items() if t == task}
            after = {b: outcomes(corrected[b], task).only(cell.ids) for b, cell in cells.items()}
            changed = {b: int((after[b].gold != cell.gold).sum()) for b, cell in cells.items()}
            for b in (b for b, n in changed.items() if n):
                pair = estimates(cells[b]).f1, estimates(after[b]).f1
                found.append(Relabelled(entrant.label, b, task, *pair, changed[b]))
            if any(changed.values()):
                weights = {b: entrant.weights[task, b] for b in cells}
                means = weighted_f1(list(cells.values()), weights), weighted_f1(list(after.values()), weights)
                found.append(Relabelled(entrant.label, "weighted mean", task, *means, sum(changed.values())))
    return found


def _notes(opened: Sequence[Run], entrants: Sequence[Contestant]) -> list[str]:
    notes = []
    for run, entrant in zip(opened, entrants, strict=True):
        notes += [f"{entrant.label}: {note}" for note in run.manifest.get("notes", ())]
        if (limit := run.manifest.get("config", {}).get("limit")) is not None:
            notes.append(f"{entrant.label}: a sample of {limit} rows per benchmark")
        states = Counter(c.verdict.status for c in run.cases if c.verdict.status != "ok")
        if states:
            counted = ", ".join(f"{status} {n:,}" for status, n in states.most_common())
            notes.append(
                f"{entrant.label}: {states.total():,} rows without a verdict, each counted as wrong: {counted}"
            )
        if run.manifest.get("labels") == "corrected":
            notes.append(f"{entrant.label}: its own scores were made on corrected labels; this report starts from gold")
        if not all((s.benchmark, row.id) in run.examples for s in run.stored for row in s.rows):
            notes.append(f"{entrant.label}: some texts are not at hand, their errors are named by id; give --data DIR")
    return notes


def write_report(report: Report, out: str | Path) -> list[Path]:
    """Write the page, the Markdown, the figures and the numbers; returns the paths."""
    from guardreasoner.report.markdown import render_markdown
    from guardreasoner.report.page import render_html

    folder = Path(out)
    content: dict[str, str | bytes] = {
        "report.html": render_html(report),
        "report.md": render_markdown(report),
        "report.json": dumps(numbers(report)) + "\n",
        **{f"figures/{name}.svg": svg for name, svg in report.figures.items()},
    }
    for name, text in content.items():
        write_atomic(folder / name, text)
    return [folder / name for name in content]


def numbers(report: Report) -> dict[str, Any]:
    """The numbers of the tables as plain values."""
    return {
        "title": report.title,
        "made": report.made,
        "version": report.version,
        "tables": [
            {
                "task": table.task.value,
                "columns": list(table.columns),
                "rows": dict(table.rows),
                "all_positive": sorted(table.all_positive),
                "lines": [asdict(line) for line in table.lines],
            }
            for table in report.standings.tables
        ],
        "comparisons": [asdict(c) | {"sentence": c.sentence} for c in report.standings.comparisons],
        "exploratory": [asdict(c) for c in report.standings.looks],
        "scores": [asdict(s) for c in report.contestants for s in c.scores.values()],
        "slices": [asdict(s) for s in report.slices],
        "costs": [asdict(c) for c in report.costs],
        "relabelled": [asdict(r) for r in report.relabelled],
        "notes": list(report.notes),
    }
