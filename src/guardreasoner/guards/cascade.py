"""Two guards in a row: the first judges everything, the second what the first is unsure of or could not judge.

The second may decide alone where it is asked, or together with the first: a logistic `Stack` of both log-odds, fitted
on rows that neither was trained on. `models/mini/stacks.json` holds those of the guard that comes with the package.
"""

from __future__ import annotations

import inspect
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from guardreasoner.errors import ConfigError, GuardReasonerError, UnknownName
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.formats.conclusion import conclusion
from guardreasoner.guards.base import Guard, Judging, fail_mode_of, known_mode, unjudged, validated
from guardreasoner.guards.key_sentence import FirstVerdict
from guardreasoner.guards.step_stream import StepSink, placed
from guardreasoner.metrics import logit, sigmoid
from guardreasoner.types import SETTLED, TASKS, Exchange, Labels, Mode, Task, Verdict

log = logging.getLogger("guardreasoner.guards")
Bands = Mapping[Task, tuple[float, float]]
EDGE = 1e-6
"""How near to 0 and 1 a probability counts in a stack."""
RESERVE = 0.1
"""Share of the time before a deadline that the second guard may not use: the first's verdict is still told in time."""


@dataclass(frozen=True, slots=True)
class Stack:
    """How two scores of one task become one: P = sigmoid(first * logit p1 + second * logit p2 + bias)."""

    first: float
    second: float
    bias: float
    threshold: float
    """P at or above which the positive label is given."""

    def probability(self, p1: float, p2: float) -> float:
        """P(positive) of the two guards' P."""
        return sigmoid(self.first * logit(p1, EDGE) + self.second * logit(p2, EDGE) + self.bias)


def read_bands(given: str | Path | Mapping[str, Any]) -> Bands:
    """Bands from plain values, as an option or a file holds them."""
    if not isinstance(given, Mapping):
        given = _mapping(Path(given))
    found: dict[Task, tuple[float, float]] = {}
    for name, band in given.items():
        if name not in TASKS:
            raise UnknownName("task", name, (t.value for t in TASKS))
        numbers = [v for v in band if isinstance(v, int | float)] if isinstance(band, list | tuple) else []
        if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] <= 1:
            raise ConfigError(f"the band of {name} is not two numbers [low, high] with 0 <= low <= high <= 1")
        found[Task(name)] = (float(numbers[0]), float(numbers[1]))
    return found


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no bands ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no bands (it is no JSON object)")
    return content


def read_stacks(path: Path) -> tuple[Bands, dict[Task, Stack]]:
    """Bands and stacks of a file that `evaluate/fit_stack.py` wrote."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        stacks = {Task(name): Stack(**{k: float(v) for k, v in row.items()}) for name, row in given["stacks"].items()}
        return read_bands(given["bands"]), stacks
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} holds no bands and stacks ({type(error).__name__})") from None


class CascadeGuard(Judging):
    """Any two guards; the first needs scores."""

    def __init__(
        self,
        first: Guard,
        second: Guard | Callable[[], Guard],
        bands: Bands,
        *,
        stacks: Mapping[Task, Stack] | None = None,
        mode: Mode = "auto",
        reasons: Mode | None = None,
        parts_stay: bool = False,
        name: str | None = None,
    ) -> None:
        """Args:
        first: judges everything; where it is a cascade itself, in the mode that is asked for.
        second: judges what falls in a band, and what the first could not judge; or what makes it when it is needed.
        bands: per task the open interval of the first guard's score in which `auto` asks the second.
        stacks: per task how both decide together, where the second is asked about it; a task without one is the first
            guard's, and so is what the first could not judge. None = where the second is asked about a task, it decides
            alone, and the other tasks stay the first's.
        mode: default of `judge`: `instant` = the first alone, `short` and `full` = both about everything, `auto` = both
            inside the bands.
        reasons: the second guard's mode in `auto`; None = its own.
        parts_stay: what a part of a text has decided (`notes.parts`, `notes.windows`) stays the first guard's, and so
            does what it could not judge.
        name: default `first+second`.
        """
        self.first, self.bands, self.stacks, self.mode, self.reasons = first, bands, stacks, mode, reasons
        self.parts_stay, self.fail_mode = parts_stay, fail_mode_of(first)
        self.judges_parts = bool(getattr(first, "judges_parts", False))
        if evidence := getattr(first, "evidence", None):
            self.evidence = evidence
        self._load = second if callable(second) else lambda: second
        self._loaded: Guard | None = None if callable(second) else second
        self._missing: str | None = None
        """Why the second guard cannot be loaded, once that is known."""
        self._loading = Lock()
        """Held while the second guard is loaded: threads that judge together share one."""
        self.name = name or f"{first.name}+{self.second.name}"
        self.tasks = first.tasks if callable(second) else tuple(t for t in Task if t in first.tasks + second.tasks)
        self.kinds = tuple(getattr(first, "kinds", ()))
        self.calibration = getattr(first, "calibration", None)

    @property
    def second(self) -> Guard:
        """The second guard, loaded when it is first needed; who asks for it asks again for one that did not load."""
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def judge(
        self,
        exchanges: Sequence[Exchange],
        *,
        mode: Mode | None = None,
        deadline: float | None = None,
        tasks: Collection[Task] | None = None,
        max_escalations: int | None = None,
        on_step: StepSink | None = None,
    ) -> list[Verdict]:
        """One verdict per exchange, in input order.

        Args:
            exchanges: any number.
            mode: instead of the guard's own.
            deadline: `time.monotonic()` seconds; where the second guard is not done with a tenth of the time left, the
                first's verdict stands, with the note `escalation_failed`.
            tasks: the only tasks that are asked; None = all that make sense.
            max_escalations: in `auto`, the most exchanges that the second guard is asked about; the others keep the
                first's verdict with the note `escalation_denied`. It does not bind a first guard that is a cascade.
            on_step: called with the second guard's steps, if it reports them.
        """
        mode, exchanges = known_mode(mode or self.mode), validated(exchanges)
        more: dict[str, Any] = {"deadline": deadline, "tasks": tasks}
        how: Mode = mode if isinstance(self.first, CascadeGuard) else "instant"
        found = _ask(self.first, exchanges, mode=how, **more)
        verdicts = [replace(v, guard=self.name) for v in found]
        if mode == "instant":
            return verdicts
        asked = [i for i, v in enumerate(verdicts) if self._goes_on(v, mode)]
        if mode == "auto" and max_escalations is not None:
            for i in asked[max(0, max_escalations) :]:
                verdicts[i] = replace(verdicts[i], notes={**verdicts[i].notes, "escalation_denied": True})
            asked = asked[: max(0, max_escalations)]
        if asked:
            more |= {"mode": self.reasons if mode == "auto" else mode, "on_step": placed(on_step, asked)}
            firsts = [FirstVerdict(verdicts[i], self._open(verdicts[i], mode)) for i in asked]
            if deadline is not None:
                more["deadline"] = deadline - RESERVE * max(0.0, deadline - time.monotonic())
            reasoned = self._reasoned([exchanges[i] for i in asked], firsts, **more)
            for i, first, second in zip(asked, firsts, reasoned, strict=True):
                verdicts[i] = self._combined(verdicts[i], second, first.open)
        return verdicts

    def _open(self, verdict: Verdict, mode: Mode) -> tuple[Task, ...]:
        """The tasks that the second guard has a say in."""
        tasks = self.unsure(verdict) if mode == "auto" and verdict.status == "ok" else self._whole(tuple(Task), verdict)
        return tasks if self.stacks is None else tuple(t for t in tasks if t in self.stacks)

    def _reasoned(self, exchanges: Sequence[Exchange], firsts: Sequence[FirstVerdict], **how: Any) -> list[Verdict]:
        """What the second guard says; a guard that cannot be loaded takes nothing away from what the first judged.

        It is not tried again for each batch: loading may take a minute, and what is not there now seldom comes.
        """
        with self._loading:
            if self._loaded is None and self._missing is None:
                try:
                    self._loaded = self._load()
                except (GuardReasonerError, OSError, MemoryError) as error:
                    self._missing = str(error) or "there is not enough memory for it"
                    said = "%s judges without its second guard, which cannot be loaded: %s"
                    log.warning(said, self.name, self._missing)
            second = self._loaded
        if second is not None:
            if getattr(second, "concludes", False) and (find := getattr(self.first, "evidence", None)):
                asked, deadline = zip(exchanges, firsts, strict=True), how["deadline"]
                firsts = [replace(first, parts=find(e, first.standing, deadline)) for e, first in asked]
            return _ask(second, exchanges, first=firsts, **how)
        blank = Verdict("", self.name, "", "ok")
        why, mode = self._missing, self.fail_mode
        return [unjudged(replace(blank, exchange_id=e.id), "unavailable", why, mode) for e in exchanges]

    def _goes_on(self, verdict: Verdict, mode: Mode) -> bool:
        """Whether the second guard is asked; two that decide together need the first's score."""
        if verdict.status != "ok":
            return self.stacks is None and not self.parts_stay
        if self.parts_stay and not self._open(verdict, mode):
            return False
        return mode != "auto" or bool(self.unsure(verdict))

    def unsure(self, verdict: Verdict) -> tuple[Task, ...]:
        """The tasks whose score lies inside the band."""
        within = (
            t for t, (low, high) in self.bands.items() if (p := verdict.scores[t.value]) is not None and low < p < high
        )
        return self._whole(within, verdict)

    def _whole(self, tasks: Iterable[Task], verdict: Verdict) -> tuple[Task, ...]:
        """The tasks that the second guard may decide."""
        if not self.parts_stay:
            return tuple(tasks)
        notes = verdict.notes
        return () if "windows" in notes else tuple(t for t in tasks if t.value not in notes.get("parts", ()))

    def close(self) -> None:
        self.first.close()
        with self._loading:  # what is being loaded is closed too
            if self._loaded is not None:
                self._loaded.close()

    def _combined(self, first: Verdict, second: Verdict, asked: Collection[Task]) -> Verdict:
        usage = first.usage + second.usage
        if first.status not in SETTLED:
            return replace(second, guard=self.name, usage=usage)
        if second.status not in SETTLED:
            return replace(first, usage=usage, notes={**first.notes, "escalation_failed": second.status})
        labels, scores, decided = first.labels.as_dict(), dict(first.scores), []
        for task in Task:
            name, p1, p2 = task.value, first.scores[task.value], second.scores[task.value]
            stack = (self.stacks or {}).get(task)
            if stack and task in asked and p1 is not None and p2 is not None:
                p, row = stack.probability(p1, p2), TASKS[task]
                scores[name], labels[name] = p, row.positive if p >= stack.threshold else row.negative
                decided.append(name)
            elif second.labels[task] is not None and (labels[name] is None or (self.stacks is None and task in asked)):
                labels[name], scores[name] = second.labels[task], p2
                decided.append(name)
        made = Labels.of(labels)
        said = {t: {word, second.labels[t]} for t in made.tasks if (word := conclusion(second.steps, t))}
        differing = {t.value: other for t, words in said.items() for other in words - {None, made[t]}}
        kept = {k: v for k, v in first.notes.items() if k not in ("unread", "language", "mode")}
        notes = kept | {k: v for k, v in second.notes.items() if k != "disagreement"} | {"escalated": decided}
        notes["guards"] = [*first.notes.get("guards", [self.first.name]), self.second.name]
        return replace(
            second,
            guard=self.name,
            labels=made,
            scores=scores,
            calibrated=first.calibrated and (second.calibrated or not decided),
            harm=second.harm if made.harmful else None,
            kinds=first.kinds or second.kinds,
            attack=second.attack if first.attack is None else first.attack,
            flagged=made.harmful or second.fail_mode == "closed",
            text=wire_format.with_block(second.text, made),
            notes={**notes, **({"disagreement": differing} if differing else {})},
            usage=usage,
        )


def _ask(guard: Guard, exchanges: Sequence[Exchange], **wanted: Any) -> list[Verdict]:
    """A guard's verdicts; passes those options that its `judge` accepts."""
    known = inspect.signature(guard.judge).parameters
    return guard.judge(exchanges, **{k: v for k, v in wanted.items() if v is not None and k in known})
