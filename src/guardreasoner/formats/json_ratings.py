"""A JSON object of ratings: NemoGuard 8B (Aegis Guard 2.0) and Nemotron Safety Guard 8B v3.

    {"User Safety": "unsafe", "Response Safety": "safe", "Safety Categories": "Violence"}

Both harm tasks in one call, one user message. The score is P(unsafe) against P(safe) at the value of each key; the
family publishes none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from guardreasoner.formats.base import Call, Parsed, as_chat, filled, label, share, unread
from guardreasoner.generation import Choice, Completion, Free, Plan, PlanStep, Text
from guardreasoner.types import Exchange, Labels, Task

KEYS: dict[Task, str] = {Task.prompt_harm: "User Safety", Task.response_harm: "Response Safety"}
WORDS = ("unsafe", "safe")

_RATING = re.compile(r"\"?(User Safety|Response Safety)\"?\s*:\s*\"?(safe|unsafe)\b", re.I)
_NAMED = re.compile(r"\"?Safety Categories\"?\s*:\s*\"([^\"\n]*)", re.I)


@dataclass(frozen=True, slots=True)
class Options:
    """What one row may set."""

    frame: Mapping[str, str] = field(default_factory=dict)
    """The user message with holes, by side (`prompt`, `response`)."""
    categories: int = 40
    """Tokens for the categories after scored ratings; 0 = not asked for."""
    max_tokens: int = 100
    """Tokens where the engine writes freely (model card: 100)."""


def render(exchange: Exchange, tasks: Sequence[Task], options: Options, *, force: bool) -> list[Call]:
    """One call for both harm tasks."""
    asked = tuple(task for task in KEYS if task in tasks)
    if not asked:
        return []
    side = "prompt" if exchange.response is None else "response"
    prompt = as_chat(("user", filled(options.frame[side], exchange)))
    return [Call(asked, prompt, _plan(exchange.response is not None, options, force))]


def _plan(reply: bool, options: Options, force: bool) -> Plan:
    if not force:
        return (Free(options.max_tokens),)
    steps: list[PlanStep] = [Text(f'{{"{KEYS[Task.prompt_harm]}": "'), Choice(WORDS)]
    if reply:
        steps += [Text(f'", "{KEYS[Task.response_harm]}": "'), Choice(WORDS)]
    return (*steps, Text('"'), Free(options.categories)) if options.categories else (*steps, Text('"}'))


def parse(call: Call, completion: Completion, options: Options) -> Parsed:
    """The JSON object, or the ratings alone where it is broken off or badly quoted."""
    found = _object(completion.text) or {k.lower(): v.lower() for k, v in _RATING.findall(completion.text)}
    answers = {t: found.get(key.lower()) for t, key in KEYS.items() if t in call.tasks}
    labels = Labels.of({t: label(t, a == "unsafe") for t, a in answers.items() if a in WORDS})
    scores = {
        task: score
        for task, choice in zip(KEYS, completion.choices, strict=False)
        if task in call.tasks and (score := share(choice, WORDS[:1], WORDS[1:])) is not None
    }
    problem = unread(call, labels, "no_verdict" if found else "no_block")
    return Parsed(labels, harm=_categories(completion.text), problem=problem, scores=scores)


def _object(text: str) -> dict[str, str]:
    start, end = text.find("{"), text.rfind("}")
    try:
        value = json.loads(text[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        return {}
    return {str(k).lower(): str(v).strip().lower() for k, v in value.items()} if isinstance(value, dict) else {}


def _categories(text: str) -> str | None:
    found = _NAMED.search(text)
    return found.group(1).strip()[:80] or None if found else None
