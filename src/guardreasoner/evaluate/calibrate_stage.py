"""Calibration as a stage of a recipe: judge the run's validation rows, fit what the exported model needs.

    DIR/calibrate/verdicts/<mode>.jsonl   what the uncalibrated model says of each row, asked as it is asked in use
    DIR/calibrate/verdicts/first.jsonl    what the guard says whose verdicts the model reads before it reasons
    DIR/export/model/calibration.json     P and thresholds per task and mode
    DIR/export/model/stacks.json          how both decide together, where there is such a guard

Rows that were judged are not judged again when the stage continues, nor when another target or budget is fitted.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from guardreasoner.errors import DataError
from guardreasoner.evaluate.calibrate import CalibrateConfig, Fit, Target, as_asked, as_row, fit_verdicts, margins
from guardreasoner.evaluate.fit_stack import StackFit, TwoAnswers, as_file, as_text, fit_rows
from guardreasoner.evaluate.run_benchmarks import draw, judge
from guardreasoner.guards.base import Guard
from guardreasoner.guards.calibration import Calibration
from guardreasoner.guards.load import behind, find_row, load_guard
from guardreasoner.records import read_records, write_atomic
from guardreasoner.run_folder import Counts, RunFolder
from guardreasoner.types import SETTLED, TASKS, Example, Mode, Task, Verdict

REFITTED = ("target", "targets", "sources", "pieces", "budget", "modes", "limit")
"""Keys that may change from one run of the stage to the next: no verdict depends on them."""


def run(out: str | Path, config: CalibrateConfig, *, first: str | None = None, fresh: bool = False) -> dict[str, Any]:
    """Fit `export/model` on the run's validation rows."""
    model = Path(out) / "export" / "model"
    rows = Path(out) / ("encoder" if (Path(out) / "encoder").is_dir() else "synthesize") / "validation.jsonl"
    inputs = [rows, model / "model.onnx", *_weights(first)]
    asked = {**asdict(config), **({"first": first} if first else {})}
    with RunFolder(out, "calibrate", config=asked, inputs=inputs, fresh=fresh, resumable_keys=REFITTED) as folder:
        done = folder.manifest
        if done is not None and done["config"] == folder.config and (model / "calibration.json").exists():
            return done
        examples = list(read_records(Example, rows))
        if not examples:
            raise DataError("no validation rows; name sources in data.leave_out", file=str(rows))
        if config.limit is not None:
            examples = draw(examples, config.limit, "0")
        met = list(as_asked(examples))
        said = {mode: _judged(folder, mode, _model(model, cast(Mode, mode), first), met) for mode in config.modes}
        fits = [fit for mode in config.modes for fit in _fits(said[mode], met, mode, config)]
        sources = ", ".join(sorted({e.exchange.source for e in examples}))
        curves = {(f.task, f.mode): replace(f.curve, piece=config.pieces.get(f.task.value)) for f in fits}
        found = Calibration(curves, f"{len(examples)} rows of left-out sources: {sources}")
        write_atomic(model / "calibration.json", json.dumps(found.as_dict(), indent=2) + "\n")
        if first and "full" in said:
            with load_guard(first, mode="instant") as guard:
                thresholds = _thresholds(guard)
                looks = _judged(folder, "first", guard, met)
            stacks = _stacked(looks, said["full"], met, calibration=found, budget=config.budget, thresholds=thresholds)
            print(as_text(stacks), file=sys.stderr)
            write_atomic(model / "stacks.json", json.dumps(as_file(stacks), indent=2) + "\n")
        judged = sum(all(v.status in SETTLED for v in verdicts) for verdicts in zip(*said.values(), strict=True))
        counts = Counts(in_=len(met), out=judged)
        if judged < len(met):
            counts.drop("unjudged", len(met) - judged)
        return folder.finish(counts, fits=[as_row(f) for f in fits])


def _weights(first: str | None) -> list[Path]:
    """The folder of the guard that judges first, where it has one."""
    folder = find_row(first).model if first and ":" not in first else ""
    return [Path(folder)] if folder and Path(folder).is_dir() else []


def _model(folder: Path, mode: Mode, first: str | None) -> Guard:
    """The model without a calibration; where it reasons, behind the guard whose verdicts it reads."""
    guard = load_guard(str(folder), mode=mode, calibration=Calibration())
    return guard if first is None or mode == "instant" else behind(first, guard, mode=mode)


def _judged(folder: RunFolder, title: str, guard: Guard, examples: Sequence[Example]) -> list[Verdict]:
    """One verdict an example."""

    def progress(_: str, done: int, total: int) -> None:
        folder.tick()
        print(f"calibrate: {title} {done}/{total}", file=sys.stderr)

    with guard:
        made = judge(guard, title, examples, path=folder.path / "verdicts" / f"{title}.jsonl", progress=progress)
    return [_own(one.verdict) for one in made]


def _own(verdict: Verdict) -> Verdict:
    """What the model itself said: nothing, where it failed and the first guard decided."""
    failed = verdict.notes.get("escalation_failed")
    return replace(verdict, status=failed, scores=dict.fromkeys(verdict.scores)) if failed else verdict


def _fits(verdicts: Sequence[Verdict], examples: Sequence[Example], mode: str, config: CalibrateConfig) -> list[Fit]:
    return fit_verdicts(
        verdicts,
        examples,
        mode=mode,
        target=Target.parse(config.target),
        targets={Task(task): Target.parse(rule) for task, rule in config.targets.items()},
        sources=config.sources,
        budget=config.budget,
    )


def _stacked(
    first: Sequence[Verdict],
    second: Sequence[Verdict],
    examples: Sequence[Example],
    *,
    calibration: Calibration,
    budget: float,
    thresholds: Mapping[Task, float],
) -> list[StackFit]:
    """Both guards together; the second's scores are taken as the calibration makes them."""
    curves = {task: calibration.curve(task, "full") for task in TASKS}
    columns = {task: margins(second, task) for task in TASKS}
    rows = [
        TwoAnswers(
            example.exchange.source,
            example.gold.as_dict(),
            verdict.scores,
            {t: None if math.isnan(x := columns[t][i]) else curves[t].probability(x) for t in TASKS},
        )
        for i, (example, verdict) in enumerate(zip(examples, first, strict=True))
    ]
    return fit_rows(rows, budget=budget, thresholds=thresholds)


def _thresholds(guard: Guard) -> dict[Task, float]:
    calibration: Calibration = getattr(guard, "calibration", Calibration())
    return {task: calibration.curve(task, "instant").threshold for task in TASKS}
