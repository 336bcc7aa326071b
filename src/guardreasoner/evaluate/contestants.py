"""The runs of a report, prepared for comparison: distinct labels, scored cells, and what each guard saw in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from guardreasoner.evaluate.finished_runs import Run
from guardreasoner.evaluate.score import score_rows
from guardreasoner.evaluate.seen_in_training import Tag, exposure, sources_of
from guardreasoner.evaluate.statistics import Outcomes, outcomes
from guardreasoner.guards.ours import BUNDLED_FOLDERS
from guardreasoner.records import read_records
from guardreasoner.types import Score, Task


@dataclass(frozen=True, slots=True)
class Contestant:
    """A run with its cells ready for arithmetic."""

    label: str
    run: Run
    cells: Mapping[tuple[Task, str], Outcomes]
    scores: Mapping[tuple[Task, str], Score]
    weights: Mapping[tuple[Task, str], float]
    seen: Mapping[str, Tag] | None
    """Benchmark to tag; None = unknown."""


def contestants(runs: Sequence[Run]) -> list[Contestant]:
    """Runs with their cells and labels that tell them apart."""
    return [_contestant(run, label) for run, label in zip(runs, _labels(runs), strict=True)]


def _labels(runs: Sequence[Run]) -> list[str]:
    """Guard, or the recipe and variant that made it; with its mode, or else its folder, where that is not unique."""
    named = [_named(run) for run in runs]
    guards = Counter(named)
    modes = Counter((name, run.mode) for name, run in zip(named, runs, strict=True))
    labels = []
    for name, run in zip(named, runs, strict=True):
        if guards[name] == 1:
            labels.append(name)
        elif run.mode and modes[name, run.mode] == 1:
            labels.append(f"{name} {run.mode}")
        else:
            labels.append(name if run.name == name else f"{name} {run.name}")
    return labels if len(set(labels)) == len(labels) else [f"{name} #{i}" for i, name in enumerate(labels, 1)]


def _named(run: Run) -> str:
    """`reproduce` evaluates folders that are all called `checkpoint` or `model`."""
    config = run.manifest.get("config", {})
    return f"{config['recipe']} {config.get('variant') or ''}".strip() if config.get("recipe") else run.guard


def _contestant(run: Run, label: str) -> Contestant:
    cells: dict[tuple[Task, str], Outcomes] = {}
    scores: dict[tuple[Task, str], Score] = {}
    weights = _weights(run)
    for one in run.benchmarks:
        for task in one.answered:
            key = (task, one.benchmark)
            score = score_rows(one, task)
            if score is not None:
                cells[key] = replace(outcomes(one, task), guard=label)
                scores[key] = replace(score, guard=label)
                weights.setdefault(key, float(score.n))
    return Contestant(label, run, cells, scores, weights, exposure(run.guard, _sources(run)))


def _sources(run: Run) -> list[str] | None:
    """The training sources that the guard's own manifest lists, if there is one."""
    config = run.manifest.get("config", {})
    named = [Path(str(config[key])) for key in ("model", "asked") if config.get(key)]
    folder = next((path for path in named if path.is_dir()), BUNDLED_FOLDERS.get(run.guard))
    return sources_of(folder) if folder else None


def _weights(run: Run) -> dict[tuple[Task, str], float]:
    """Rows that each cell counts as: more than were judged if the run had a limit."""
    path = run.folder / "scores.jsonl"
    if not path.exists():
        return {}
    return {(s.task, s.benchmark): float(s.extra.get("weight") or s.n) for s in read_records(Score, path)}
