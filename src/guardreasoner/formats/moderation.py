"""The result of a moderation endpoint: `flagged`, `categories`, `category_scores` (OpenAI `POST /v1/moderations`).

One text per call: the request alone, or the reply without its request (safety-eval `api_safety_classifiers.py`). It is
harmful iff `flagged`. The score is the greatest category score; that is our rule, not a published one, and since
`flagged` has its own threshold per category, a score above 0.5 does not mean the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from guardreasoner.formats.base import Call, Parsed, label
from guardreasoner.generation import Completion, Judged
from guardreasoner.types import Exchange, Labels, Task


@dataclass(frozen=True, slots=True)
class Options:
    """What one row may set: nothing; the endpoint takes a text."""


def render(exchange: Exchange, tasks: Sequence[Task], options: Options, *, force: bool) -> list[Call]:
    """One call per harm task."""
    texts = {Task.prompt_harm: exchange.prompt, Task.response_harm: exchange.response or ""}
    return [Call((task,), (Judged(texts[task]),), ()) for task in tasks if task in texts]


def parse(call: Call, completion: Completion, options: Options) -> Parsed:
    """The text is one entry of the endpoint's `results`, as JSON."""
    task = call.tasks[0]
    try:
        result = json.loads(completion.text)
        flagged, scores = result["flagged"], dict(result.get("category_scores") or {})
        score = max((float(v) for v in scores.values() if v is not None), default=None)
        named = [str(k) for k, on in dict(result.get("categories") or {}).items() if on is True]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Parsed(Labels(), problem="no_verdict")
    if not isinstance(flagged, bool):
        return Parsed(Labels(), problem="no_verdict")
    return Parsed(
        Labels.of({task: label(task, flagged)}),
        harm=", ".join(named)[:80] or None,
        scores={task: min(1.0, max(0.0, score))} if score is not None else {},
    )
