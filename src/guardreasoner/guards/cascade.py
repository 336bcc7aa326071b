"""Two guards in a row: the first judges everything, the second only what the first is unsure of or could not judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from guardreasoner.errors import ConfigError, UnknownName
from guardreasoner.guards.base import Guard, Judging
from guardreasoner.types import TASKS, Exchange, Labels, Task, Verdict

Bands = Mapping[Task, tuple[float, float]]


def read_bands(given: Mapping[str, Any]) -> Bands:
    """Bands from plain values, as an option or a file holds them.

    Raises:
        UnknownName: no such task.
        ConfigError: a band is not two numbers, 0 <= low <= high <= 1.
    """
    found: dict[Task, tuple[float, float]] = {}
    for name, band in given.items():
        if name not in TASKS:
            raise UnknownName("task", name, (t.value for t in TASKS))
        numbers = [v for v in band if isinstance(v, int | float)] if isinstance(band, list | tuple) else []
        if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] <= 1:
            raise ConfigError(f"the band of {name} is not two numbers [low, high] with 0 <= low <= high <= 1")
        found[Task(name)] = (float(numbers[0]), float(numbers[1]))
    return found


class CascadeGuard(Judging):
    """Any two guards; the first needs scores.

    Only the tasks inside their band are asked of the second guard as far as the verdict goes: the labels and scores of
    the other tasks stay those of the first.
    """

    def __init__(self, first: Guard, second: Guard, bands: Bands, *, name: str | None = None) -> None:
        """Args:
        first: judges everything.
        second: judges what falls in a band, and what the first could not judge.
        bands: per task the open interval of the first guard's score in which the second decides.
        name: default `first+second`.
        """
        self.first, self.second, self.bands = first, second, bands
        self.name = name or f"{first.name}+{second.name}"
        self.tasks = tuple(t for t in Task if t in first.tasks or t in second.tasks)

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        verdicts = [replace(v, guard=self.name) for v in self.first.judge(exchanges)]
        asked = {i: self.unsure(v) for i, v in enumerate(verdicts) if v.status != "ok" or self.unsure(v)}
        second = self.second.judge([exchanges[i] for i in asked])
        for (i, tasks), verdict in zip(asked.items(), second, strict=True):
            verdicts[i] = _combine(verdicts[i], verdict, tasks)
        return verdicts

    def unsure(self, verdict: Verdict) -> tuple[Task, ...]:
        """The tasks whose score lies inside the band."""
        return tuple(
            t for t, (low, high) in self.bands.items() if (p := verdict.scores[t.value]) is not None and low < p < high
        )

    def close(self) -> None:
        self.first.close()
        self.second.close()


def _combine(first: Verdict, second: Verdict, tasks: Sequence[Task]) -> Verdict:
    usage = first.usage + second.usage
    if first.status != "ok":
        return replace(second, guard=first.guard, usage=usage)
    if second.status != "ok":
        return replace(first, usage=usage, notes={**first.notes, "escalation_failed": second.status})
    labels = Labels.of({**first.labels.as_dict(), **{t.value: second.labels[t] for t in tasks}})
    return replace(
        second,
        guard=first.guard,
        labels=labels,
        scores={**first.scores, **{t.value: second.scores[t.value] for t in tasks}},
        calibrated=first.calibrated and second.calibrated,
        flagged="harmful" in (labels.prompt_harm, labels.response_harm),
        notes={**second.notes, "escalated": [t.value for t in tasks]},
        usage=usage,
    )
