"""What every answer format provides: prompts from an exchange, and labels from an answer.

`guardreasoner` is this project's own format and has its own two functions. Every other module of this folder has

    Options     a frozen dataclass: what one row may set, with defaults; an unknown key is an error
    render      exchange, tasks, options -> the calls that answer them
    parse       call, completion, options -> `Parsed`

A call is one question to the model: some families answer everything at once (WildGuard), some one task at a time
(LLaMA Guard), some one policy at a time (ShieldGemma). `guards.others.prompted` runs the calls and combines the
answers: a task that several calls answer is positive if any of them is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Literal, Protocol, cast

from guardreasoner import formats
from guardreasoner.errors import UnknownName
from guardreasoner.generation import Chat, Completion, Judged, Plan, Prompt, Scaffold, Segment, Turn
from guardreasoner.types import TASKS, Exchange, Labels, Message, Step, Task

Problem = Literal["no_block", "no_verdict", "conflict"]

FORMATS = tuple(sorted(m.name for m in iter_modules(formats.__path__) if m.name not in ("base", "conclusion")))
"""The answer formats: every other module of this folder."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What an answer says. `problem` is None when every verdict it should hold was read."""

    labels: Labels
    steps: tuple[Step, ...] = ()
    harm: str | None = None
    problem: Problem | None = None
    """`no_block`: no answer block; `no_verdict`: a block without a readable verdict; `conflict`: it says two things."""
    notes: Mapping[str, object] = field(default_factory=dict)
    scores: Mapping[Task, float] = field(default_factory=dict)
    """P(positive) per task as the family defines it; absent where the answer gives none."""
    attack: float | None = None
    """P that the text tries to steer a model, where that is what the guard finds."""


@dataclass(frozen=True, slots=True)
class Call:
    """One question to a model."""

    tasks: tuple[Task, ...]
    """The tasks its answer decides."""
    prompt: Prompt
    plan: Plan
    policy: str = ""
    """The name of the policy it asks about, where a family asks about one at a time."""


class Format(Protocol):
    """A format module."""

    Options: type[Any]

    def render(self, exchange: Exchange, tasks: Sequence[Task], options: Any, *, force: bool) -> list[Call]:
        """The calls that answer the tasks.

        Args:
            tasks: what to answer; all make sense for the exchange.
            force: the engine can force text and score words (`Text`, `Choice`); else the model writes freely.
        """
        ...

    def parse(self, call: Call, completion: Completion, options: Any) -> Parsed:
        """What one answer says; never raises on anything a model or server wrote."""
        ...


def format_of(name: str) -> Format:
    """The module of a format."""
    if name not in FORMATS:
        raise UnknownName("answer format", name, FORMATS)
    return cast(Format, import_module(f"guardreasoner.formats.{name}"))


def fill(template: str, values: Mapping[str, str]) -> tuple[Segment, ...]:
    """A template with `{name}` holes as segments: its own text is scaffold, what goes into the holes is judged.

    Only the names in `values` are holes; any other brace is text.
    """
    if not values:
        return (Scaffold(template),)
    parts = re.split("|".join(f"({re.escape(f'{{{name}}}')})" for name in values), template)
    holes = {f"{{{name}}}": text for name, text in values.items()}
    return tuple(Judged(holes[p]) if p in holes else Scaffold(p) for p in parts if p)


def request_of(exchange: Exchange) -> str:
    """The request with the earlier messages in front of it: they are judged with it."""
    before = (f"[{'assistant' if m.role == 'assistant' else 'user'}] {m.content}\n" for m in exchange.context)
    return "".join(before) + exchange.prompt


def filled(template: str, exchange: Exchange) -> tuple[Segment, ...]:
    """A template whose holes `{prompt}` and `{response}` hold the exchange; a missing reply is the empty text."""
    return fill(template, {"prompt": request_of(exchange), "response": exchange.response or ""})


def turns(exchange: Exchange, *, reply: bool) -> tuple[Turn, ...]:
    """The conversation as chat turns that alternate, the first one the user's.

    Neighbours of one role become one turn; earlier words of the assistant without a request before them get an empty
    one, since chat templates refuse anything else.
    """
    messages = [*exchange.context, Message("user", exchange.prompt)]
    if reply and exchange.response is not None:
        messages.append(Message("assistant", exchange.response))
    merged: list[Message] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        if merged and merged[-1].role == role:
            merged[-1] = Message(role, f"{merged[-1].content}\n\n{message.content}")
        else:
            merged.append(Message(role, message.content))
    if merged[0].role == "assistant":
        merged.insert(0, Message("user", ""))
    return tuple(Turn(m.role, (Judged(m.content),)) for m in merged)


def as_chat(*parts: tuple[str, tuple[Segment, ...]]) -> Chat:
    """A chat prompt from (role, segments) pairs."""
    return Chat(tuple(Turn(role, segments) for role, segments in parts))


def share(scores: Mapping[str, float], positive: Sequence[str], negative: Sequence[str]) -> float | None:
    """P(positive words) / P(positive or negative words) from log-probabilities; None where none of them has any.

    The two-way softmax that the families use on the logits of their verdict words; several spellings of one verdict
    are added up.
    """
    ups = [scores[w] for w in positive if w in scores]
    downs = [scores[w] for w in negative if w in scores]
    top = max([*ups, *downs], default=-math.inf)
    if top == -math.inf:
        return None
    up = sum(math.exp(s - top) for s in ups)
    down = sum(math.exp(s - top) for s in downs)
    return up / (up + down)


def unread(call: Call, labels: Labels, problem: Problem = "no_verdict") -> Problem | None:
    """The problem of an answer that lacks a label of its call; None = it has them all."""
    return problem if any(labels[task] is None for task in call.tasks) else None


def above(threshold: float, scores: Mapping[Task, float]) -> Parsed:
    """The labels of scores that are compared with one threshold."""
    return Parsed(Labels.of({t: label(t, p > threshold) for t, p in scores.items()}), scores=scores)


def label(task: Task, positive: bool) -> str:
    """The task's label for yes or no."""
    return TASKS[task].positive if positive else TASKS[task].negative
