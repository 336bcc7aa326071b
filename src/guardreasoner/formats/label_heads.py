"""Encoders with a head per task, all read in one pass (LeanGuard).

`Completion.choices[0]` holds label -> log-probability, each label's own sigmoid; a row says which label belongs to
which task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from guardreasoner.formats.base import Call, Parsed, above, filled
from guardreasoner.generation import Completion
from guardreasoner.types import TASKS, Exchange, Labels, Task


@dataclass(frozen=True, slots=True)
class Options:
    """What one row may set."""

    heads: Mapping[str, str] = field(default_factory=lambda: {t.value: t.value for t in TASKS})
    """Task to the label of its positive side."""
    frame: Mapping[str, str] = field(
        default_factory=lambda: {
            "prompt": "Human user:\n{prompt}\n\n",
            "response": "Human user:\n{prompt}\n\nAI assistant:\n{response}\n\n",
        }
    )
    """Texts with holes: without a reply, and with one (LeanGuard README, "Model Details")."""
    threshold: float = 0.5
    """P above which a label holds."""


def render(exchange: Exchange, tasks: Sequence[Task], options: Options, *, force: bool) -> list[Call]:
    """One call for all tasks."""
    asked = tuple(t for t in tasks if t.value in options.heads)
    side = "prompt" if exchange.response is None else "response"
    return [Call(asked, filled(options.frame[side], exchange), ())] if asked else []


def parse(call: Call, completion: Completion, options: Options) -> Parsed:
    """Each head by itself."""
    found = completion.choices[0] if completion.choices else {}
    wanted = {t: options.heads[t.value] for t in call.tasks}
    if not all(name in found for name in wanted.values()):
        return Parsed(Labels(), problem="no_verdict")
    scores = {t: min(1.0, math.exp(found[name])) for t, name in wanted.items()}
    return above(options.threshold, scores)
