"""Reasoning written after the decision, for models that judge better without reasoning.

A small model decides best with its answer block forced at once; reasoning first makes its verdicts worse. Where a guard
`decides` in `instant`, that verdict holds in every mode, and the text is an explanation: sampled, read task by task,
and kept only where it concludes what was decided. A task without such a text has no steps, and the note `unexplained`
names it: reasoning that argues for another verdict is not shown as the reason for this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.types import Mode, Step, Task, Usage, Verdict


@dataclass(frozen=True, slots=True)
class Explaining:
    """How explanations are written."""

    temperature: float = 0.7
    """Above 0: the most likely words are the same for very many exchanges."""
    retry_temperature: float = 1.0
    tries: int = 4
    """Further texts where the first does not conclude what was decided, all of them at once."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the model wrote about one exchange, in one or several tries."""

    texts: tuple[tuple[Step, ...], ...]
    harm: tuple[str | None, ...]
    """The kind of harm that each text names."""
    usage: Usage
    error: str | None = None
    """Why there is less than was asked for."""

    def __add__(self, more: Explanation) -> Explanation:
        return Explanation(
            self.texts + more.texts, self.harm + more.harm, self.usage + more.usage, self.error or more.error
        )

    def supporting(self, verdict: Verdict) -> dict[Task, tuple[Step, ...]]:
        """Per task the steps that conclude what was decided, of the first text that has them."""
        found: dict[Task, tuple[Step, ...]] = {}
        for steps in self.texts:
            for task in verdict.labels.tasks:
                own = tuple(s for s in steps if s.task == task)
                if task not in found and own and wire_format.conclusion(own, task) == verdict.labels[task]:
                    found[task] = own
        return found

    def kind(self, verdict: Verdict) -> str | None:
        """The kind of harm named by the first text that agrees that there is any."""
        harmful = [t for t in (Task.response_harm, Task.prompt_harm) if verdict.labels[t] == "harmful"]
        for task in harmful:
            for steps, harm in zip(self.texts, self.harm, strict=True):
                if harm and wire_format.conclusion(steps, task) == "harmful":
                    return harm
        return None


def early(verdict: Verdict, asked: Sequence[Task], text: str) -> tuple[Step, ...]:
    """The first steps that a verdict will have, by a text that is still being written about the tasks asked.

    A task's steps are known when the next task has begun and they conclude what was decided. Otherwise the task is
    asked again, and all later steps wait.
    """
    written, unfinished = wire_format.settled(text, forced=False), wire_format.under_way(text)
    found: list[Step] = []
    for task in verdict.labels.tasks:
        own = [s for s in written if s.task == task]
        if task not in asked or task == unfinished or wire_format.conclusion(own, task) != verdict.labels[task]:
            break
        found += own
    return tuple(found)


def explained(verdict: Verdict, explanation: Explanation, mode: Mode) -> Verdict:
    """A decided verdict with its explanation.

    Args:
        verdict: of `instant`, with status `ok`.
        explanation: of the same exchange.
        mode: the mode that was asked for.
    """
    kept = explanation.supporting(verdict)
    steps = tuple(step for task in verdict.labels.tasks for step in kept.get(task, ()))
    missing = [task.value for task in verdict.labels.tasks if task not in kept]
    notes = dict(verdict.notes)
    if missing:
        notes["unexplained"] = missing
    if explanation.error:
        notes["reasoning_failed"] = explanation.error
    return replace(
        verdict,
        mode=mode,
        steps=steps,
        text=wire_format.answer(wire_format.reasoning_text(steps), verdict.labels),
        harm=explanation.kind(verdict) if verdict.flagged else None,
        notes=notes,
        usage=verdict.usage + explanation.usage,
    )


def unexplained(verdicts: Sequence[Verdict], explanations: Sequence[Explanation | None]) -> dict[int, tuple[Task, ...]]:
    """By place of the verdict, the tasks that lack steps and may be tried (again)."""
    found = {}
    for i, (verdict, one) in enumerate(zip(verdicts, explanations, strict=True)):
        if verdict.status == "ok" and (one is None or not one.error):
            kept = one.supporting(verdict) if one else {}
            if missing := tuple(task for task in verdict.labels.tasks if task not in kept):
                found[i] = missing
    return found
