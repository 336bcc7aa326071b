"""From log-probability margins to probabilities, and from probabilities to labels.

`calibration.json`, fitted on validation rows only:

    {"version": 1, "fitted_on": "...", "tasks": {"prompt_harm": {"instant":
        {"method": "platt", "params": [a, b], "threshold": 0.42, "band": [0.3, 0.6]}}}}

P = sigmoid(a * margin + b), where margin = logp(positive word) - logp(negative word). `threshold` is on P; `band` is
where `auto` escalates from `instant` to reasoning, null = never. `piece` (optional) is what a piece cut out of a text
needs above the threshold, in log-odds (`guards.pieces`): a sentence alone, one judged again with its neighbours, and
two sentences in a row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardreasoner.errors import ConfigError
from guardreasoner.metrics import logit, sigmoid
from guardreasoner.types import TASKS, Task

BARS = ("alone", "again", "pair")
"""In the order in which `piece` gives them."""
ASIDE = 0.7
"""Log-odds more than a piece that a text needs where most of it is judged by itself, decoded or out of its quotation
marks: what is left around it is often no English."""
DEFAULT_BAND = (0.35, 0.65)
"""Where an uncalibrated guard in mode `auto` escalates to reasoning."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One task in one mode."""

    method: str = "identity"
    """`platt`, or `identity` (the words' own probability, uncalibrated)."""
    params: tuple[float, float] = (1.0, 0.0)
    """Slope (> 0) and intercept."""
    threshold: float = 0.5
    """P at or above which the positive label is given."""
    band: tuple[float, float] | None = DEFAULT_BAND
    """P strictly inside which `auto` reasons; None = never."""

    piece: tuple[float, float, float] | None = None
    """Log-odds above the threshold that pieces need, one for each of `BARS`; None = texts are not cut up."""

    def probability(self, margin: float) -> float:
        """P(positive) of a log-probability margin."""
        return sigmoid(self.params[0] * margin + self.params[1])

    def margin(self, bar: str | None = None) -> float:
        """The log-probability margin at the threshold, or at one of the `BARS` of pieces."""
        return (logit(self.threshold) + self._above(bar) - self.params[1]) / self.params[0]

    def moved(self, probability: float, bar: str | None) -> float:
        """P of a piece, moved so that its bar is at the threshold; None = it is no piece."""
        above = self._above(bar)
        return sigmoid(logit(probability) - above) if above else probability

    def _above(self, bar: str | None) -> float:
        if bar is None or self.piece is None:
            return 0.0
        return self.piece[BARS.index(bar)] if bar in BARS else self.piece[0] + (ASIDE if bar == "around" else 0.0)

    def uncertain(self, probability: float) -> bool:
        """Whether a probability is inside the band."""
        return self.band is not None and self.band[0] < probability < self.band[1]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Curves per task and mode."""

    curves: Mapping[tuple[Task, str], Curve] = field(default_factory=dict)
    fitted_on: str = ""
    """What rows it was fitted on, for a reader."""

    def curve(self, task: Task, mode: str) -> Curve:
        """The curve of one task and mode; where none was fitted, the identity, and for `short` that of `full`."""
        return self.curves.get((task, mode)) or self.curves.get((task, "full" if mode == "short" else mode), Curve())

    def covers(self, task: Task, mode: str) -> bool:
        """Whether a curve was fitted."""
        return (task, mode) in self.curves

    def bands(self, mode: str) -> dict[Task, tuple[float, float]]:
        """Of the tasks that have one in a mode."""
        return {task: curve.band for (task, known), curve in self.curves.items() if known == mode and curve.band}

    def as_dict(self) -> dict[str, Any]:
        """The content of `calibration.json`."""
        tasks: dict[str, dict[str, Any]] = {t.value: {} for t in TASKS}
        for (task, mode), curve in self.curves.items():
            tasks[task.value][mode] = {
                "method": curve.method,
                "params": list(curve.params),
                "threshold": curve.threshold,
                "band": list(curve.band) if curve.band else None,
                **({"piece": list(curve.piece)} if curve.piece else {}),
            }
        return {"version": 1, "fitted_on": self.fitted_on, "tasks": tasks}


def calibration_of(given: str | Path | Calibration | None) -> Calibration | None:
    """A calibration, read where a file is named."""
    return read_calibration(given) if isinstance(given, str | Path) else given


def read_calibration(path: str | Path) -> Calibration:
    """Read `calibration.json`."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if (version := data.get("version", 1)) != 1 or isinstance(version, bool):
            raise ValueError(f"version {version!r}, known: 1")
        curves = {
            (Task(task), mode): _curve(row) for task, modes in data["tasks"].items() for mode, row in modes.items()
        }
        return Calibration(curves, str(data.get("fitted_on", "")))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ConfigError(f"{path}: not a calibration file ({type(error).__name__}: {error})") from None


def _curve(row: Mapping[str, Any]) -> Curve:
    slope, intercept = (float(v) for v in row["params"])
    threshold = float(row["threshold"])
    band = row.get("band")
    if row["method"] not in ("platt", "identity"):
        raise ValueError(f"unknown method {row['method']!r}, known: platt, identity")
    if not (slope > 0 and math.isfinite(slope) and math.isfinite(intercept)):
        raise ValueError("params must be a positive slope and an intercept")
    if not 0 < threshold < 1:
        raise ValueError("threshold must lie between 0 and 1")
    if band is not None and not 0 <= float(band[0]) <= float(band[1]) <= 1:
        raise ValueError("band must be [low, high] with 0 <= low <= high <= 1")
    piece = row.get("piece")
    shifts = (float(piece[0]), float(piece[1]), float(piece[2])) if piece else None
    if shifts and not all(math.isfinite(s) and abs(s) <= 20 for s in shifts):
        raise ValueError("piece must be three log-odds between -20 and 20")
    return Curve(
        row["method"], (slope, intercept), threshold, (float(band[0]), float(band[1])) if band else None, shifts
    )
