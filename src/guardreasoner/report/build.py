"""Gathers, once, everything that a report over finished runs says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from guardreasoner import __version__
from guardreasoner.evaluate.contestants import Contestant, contestants
from guardreasoner.evaluate.corrections import correct, latest, settle
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.evaluate.operating_points import compare_points, operating_points
from guardreasoner.evaluate.score import averaged
from guardreasoner.evaluate.slices import slices
from guardreasoner.evaluate.stability import read_stability
from guardreasoner.evaluate.statistics import Outcomes, estimates, holm, outcomes, weighted_f1
from guardreasoner.evaluate.stress import read_stress
from guardreasoner.records import now
from guardreasoner.report import figures
from guardreasoner.report.at_a_glance import glances
from guardreasoner.report.cost import (
    Price,
    Stage,
    cost_of,
    published_costs,
    read_speeds,
    read_stages,
)
from guardreasoner.report.findings import Relabelled, Report, TaskPoints, Twins
from guardreasoner.report.tables import Standings, standings
from guardreasoner.report.worth_reading import harmful_rows, length_points, mistakes, opinionated, side_by_side
from guardreasoner.types import TASKS, Task

BASELINE_MIX = "baseline-mix"
"""The label-only variant of every recipe (`train.recipe`)."""
Progress = Callable[[str], None]


def build(
    runs: Sequence[str | Path],
    *,
    data_dir: str | Path | None = None,
    title: str = "Guard evaluation",
    errors: int = 24,
    pairs: int = 12,
    corrections: Sequence[str | Path] = (),
    training: Sequence[str | Path] = (),
    stress: Sequence[str | Path] = (),
    per_hour: float | None = None,
    prices: Mapping[str, Price] | None = None,
    speed: Sequence[str | Path] = (),
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
        stress: folders of finished `stress` runs.
        per_hour: what an hour of the machine that judged costs, for the cost of 1,000 requests.
        prices: guard to what a provider asks for its tokens; such a guard costs that instead.
        speed: files of what `bench --json` printed; they stand in place of the times of the runs.
        progress: called with what is being done.
    """
    tell = progress or (lambda _: None)
    entrants = contestants([open_run(folder, data_dir) for folder in runs])
    veiled = harmful_rows(entrants)
    found = standings(entrants, progress=tell)
    tell("operating points")
    points = [p for task in TASKS for p in _points(entrants, task)]
    stability = {e.label: tuple(repeats) for e in entrants if (repeats := read_stability(e.run))}
    stages, attacked = tuple(read_stages(training)), tuple(map(read_stress, stress))
    tell("figures")
    speeds = read_speeds(speed)
    costs = {e.label: cost for e in entrants if (cost := cost_of(e.run, e.label, speeds)) is not None}
    return Report(
        title,
        now(),
        __version__,
        found,
        glances=tuple(glances(entrants, costs, stability, per_hour=per_hour, prices=prices)),
        per_hour=per_hour,
        prices={e.run.guard: prices[e.run.guard] for e in entrants if prices and e.run.guard in prices},
        points=tuple(points),
        twins=tuple(_twins(entrants, found, points)),
        stability=stability,
        stress=attacked,
        figures=_figures(found, stages) | ({"stress": figures.stress(attacked)} if attacked else {}),
        slices=tuple(slices(entrants)),
        mistakes={e.label: tuple(mistakes(e, errors, veiled)) for e in entrants if opinionated(e)},
        side_by_side=tuple(side_by_side(entrants, pairs)),
        costs=(*costs.values(), *published_costs()),
        stages=stages,
        relabelled=tuple(_relabelled(entrants, corrections)) if corrections else (),
        reviewed_rows=len(settle(latest(corrections))) if corrections else 0,
        notes=tuple(_notes(entrants)) + found.warnings,
    )


def _twins(entrants: Sequence[Contestant], found: Standings, points: Sequence[TaskPoints]) -> Iterator[Twins]:
    """Runs of one recipe: its own model, and `reproduce --variant baseline-mix` on the same rows."""
    made = [(e, config) for e in entrants if (config := e.run.manifest.get("config", {})).get("recipe")]
    for own, asked in made:
        for twin, config in made:
            if (
                asked.get("variant") == ""
                and config.get("variant") == BASELINE_MIX
                and asked["recipe"] == config["recipe"]
            ):
                pairs = [
                    turned for c in found.comparisons if (turned := c.seen_from(own.label, twin.label)) is not None
                ]
                areas = [
                    (p.task, p.benchmarks, area)
                    for p in points
                    for d in p.differences
                    if d.point == "full_auroc" and (area := d.seen_from(own.label, twin.label)) is not None
                ]
                yield Twins(str(asked["recipe"]), own.label, twin.label, tuple(pairs), tuple(areas))


def _points(entrants: Sequence[Contestant], task: Task) -> Iterator[TaskPoints]:
    """The benchmarks that enter means under one threshold, each other one by itself: the guards with scores that judged
    any of them, over the cells and rows that all of those judged. A sample is left out beside whole runs."""
    whole = [e for e in entrants if e.run.limit is None] or entrants
    scored = {e.label: {b: c for (t, b), c in e.cells.items() if t == task and c.scores is not None} for e in whole}
    every = list(dict.fromkeys(b for cells in scored.values() for b in cells))
    together = averaged(every)
    apart = [[b] for b in every if b not in together]
    for asked in filter(None, [[b for b in every if b in together], *apart]):
        judged = {label: own for label, own in scored.items() if any(b in own for b in asked)}
        group = [b for b in asked if all(b in own for own in judged.values())]
        rows = {b: _in_all([own[b].ids for own in judged.values()]) for b in group}
        if not (group := [b for b in group if rows[b]]):
            continue
        cells = {label: [own[b].only(rows[b]) for b in group] for label, own in judged.items()}
        guards = {label: found for label, own in cells.items() if (found := operating_points(own)) is not None}
        alike = [(cells[x], cells[y]) for x, y in combinations(cells, 2) if _same(cells[x], cells[y])]
        pairs = [d for x, y in alike for d in compare_points(x, y)]
        pairs = [replace(d, p=p) for d, p in zip(pairs, holm([d.p for d in pairs]), strict=True)]
        yield TaskPoints(task, tuple(group), guards, tuple(pairs))


def _in_all(runs: Sequence[Sequence[str]]) -> list[str]:
    """The ids that all runs hold, in the order of the first."""
    common = frozenset.intersection(*map(frozenset, runs))
    return [i for i in runs[0] if i in common]


def _same(a: Sequence[Outcomes], b: Sequence[Outcomes]) -> bool:
    """Whether gold agrees; where it does not, the tables say so."""
    return all(x.ids == y.ids and bool((x.gold == y.gold).all()) for x, y in zip(a, b, strict=True))


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
        corrected = {s.benchmark: s for s in correct(entrant.run.benchmarks, corrections)[0]}
        for task in TASKS:
            cells = {b: cell for (t, b), cell in entrant.cells.items() if t == task}
            after = {b: outcomes(corrected[b], task).only(cell.ids) for b, cell in cells.items()}
            changed = {b: int((after[b].gold != cell.gold).sum()) for b, cell in cells.items()}
            for b in (b for b, n in changed.items() if n):
                pair = estimates(cells[b]).f1, estimates(after[b]).f1
                found.append(Relabelled(entrant.label, b, task, *pair, changed[b]))
            if any(changed.values()):
                kept = [b for b in cells if b in averaged(cells)]
                weights = {b: entrant.weights[task, b] for b in kept}
                means = weighted_f1([cells[b] for b in kept], weights), weighted_f1([after[b] for b in kept], weights)
                moved = sum(changed[b] for b in kept)
                found.append(Relabelled(entrant.label, "weighted mean", task, means[0], means[1], moved))
    return found


def _notes(entrants: Sequence[Contestant]) -> list[str]:
    notes = []
    for entrant in entrants:
        run, label = entrant.run, entrant.label
        mode = f", mode {run.mode}" if run.mode else ""
        finished = f", finished {run.manifest['finished']}" if run.manifest.get("finished") else ""
        unknown = "" if entrant.seen is not None else "; what it was trained on is not known"
        notes.append(f"{label}: guard {run.guard}{mode}, {len(run.rows):,} rows{finished}{unknown}")
        notes += [f"{label}: {note}" for note in run.manifest.get("notes", ())]
        if run.limit is not None:
            notes.append(f"{label}: a sample of {run.limit} rows per task of a benchmark")
        states = Counter(c.verdict.status for c in run.rows if c.verdict.status != "ok")
        if unread := states.pop("unread", 0):
            notes.append(f"{label}: {unread:,} rows hold what the guard cannot read and count by its best guess")
        if states:
            counted = ", ".join(f"{status} {n:,}" for status, n in states.most_common())
            notes.append(f"{label}: {states.total():,} rows without a verdict, each counted as wrong: {counted}")
        if run.manifest.get("labels") == "corrected":
            notes.append(f"{label}: its own scores were made on corrected labels; this report starts from gold")
        if any(row.exchange is None for row in run.rows):
            notes.append(f"{label}: some texts are not at hand, their errors are named by id; give --data DIR")
    return notes
