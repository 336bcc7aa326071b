"""Encoders that are given their labels with the text: GLiGuard and GLiNER Guard (GLiNER2), Opir (GLiClass).

A plan alternates questions and labels: `Text(name)`, `Choice(labels)`. Requests are asked about alone and replies with
their request before them, as the owners' READMEs do. P is the positive label's share of its question's two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from guardreasoner.formats.base import Call, Parsed, above, filled, share
from guardreasoner.generation import Choice, Completion, Text
from guardreasoner.types import Exchange, Labels, Task

Question = tuple[str, str, str]
"""Its name, its positive and its negative label."""


@dataclass(frozen=True, slots=True)
class Options:
    """What one row may set."""

    questions: Mapping[str, Question] = field(
        default_factory=lambda: {
            "prompt_harm": ("safety", "unsafe", "safe"),
            "response_harm": ("safety", "unsafe", "safe"),
        }
    )
    """Task to what is asked for it; a task that is absent is not answered."""
    frame: Mapping[str, str] = field(
        default_factory=lambda: {"prompt": "{prompt}", "response": "Prompt: {prompt}\nResponse: {response}"}
    )
    """Texts with holes by side."""
    threshold: float = 0.5
    """P above which the positive label holds."""


def render(exchange: Exchange, tasks: Sequence[Task], options: Options, *, force: bool) -> list[Call]:
    """One call per side: the questions of a side share a pass where the library can."""
    calls = []
    for side, own in (("prompt", (Task.prompt_harm,)), ("response", (Task.refusal, Task.response_harm))):
        asked = tuple(t for t in own if t in tasks and t.value in options.questions)
        if asked:
            plan = [step for t in asked for step in _steps(options.questions[t.value])]
            calls.append(Call(asked, filled(options.frame[side], exchange), tuple(plan)))
    return calls


def _steps(question: Question) -> tuple[Text, Choice]:
    name, positive, negative = question
    return Text(name), Choice((positive, negative))


def parse(call: Call, completion: Completion, options: Options) -> Parsed:
    """Each question's positive label where its share passes the threshold."""
    scores: dict[Task, float] = {}
    for task, found in zip(call.tasks, completion.choices, strict=False):
        _, positive, negative = options.questions[task.value]
        p = share(found, (positive,), (negative,))
        if p is not None:
            scores[task] = p
    if set(scores) != set(call.tasks):
        return Parsed(Labels(), problem="no_verdict")
    return above(options.threshold, scores)
