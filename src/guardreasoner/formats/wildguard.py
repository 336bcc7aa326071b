"""Three lines of `key: yes|no`: WildGuard and PolyGuard.

    Harmful request: yes
    Response refusal: no
    Harmful response: no

All tasks in one call. Where the engine can, the keys are forced and each value is a scored choice; the values of
refusal and response harm are then conditional on the lines before them, as in free generation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from guardreasoner.formats.base import Call, Parsed, as_chat, fill, filled, label, share, unread
from guardreasoner.generation import Choice, Completion, Free, Plan, PlanStep, Prompt, Text
from guardreasoner.types import Exchange, Labels, Task

KEYS: dict[Task, str] = {
    Task.prompt_harm: "Harmful request",
    Task.refusal: "Response refusal",
    Task.response_harm: "Harmful response",
}
WORDS = (" yes", " no")

_LINE = re.compile(r"^\W*(harmful request|response refusal|harmful response)\W*:\s*([^\n]*?)\s*$", re.I | re.M)
_VIOLATIONS = re.compile(r"^\W*(?:request|response) safety violations\W*:\s*(.+?)\s*$", re.I | re.M)
_BY_KEY = {key.lower(): task for task, key in KEYS.items()}
_VALUES = {"yes": True, "no": False, "n/a": None, "none": None}


@dataclass(frozen=True, slots=True)
class Options:
    """What one row may set."""

    frame: Mapping[str, str] = field(default_factory=dict)
    """`prompt`: the text with `{prompt}` and `{response}` holes; with `system`: the user message beside it."""
    max_tokens: int = 128
    """Tokens where the engine writes freely (WildGuard paper, safety-eval `wildguard.py`: 128)."""


def render(exchange: Exchange, tasks: Sequence[Task], options: Options, *, force: bool) -> list[Call]:
    """One call for all tasks; without a reply the response is the empty text, as the WildGuard package has it."""
    if not tasks:
        return []
    asked = tuple(task for task in KEYS if task in tasks)
    return [Call(asked, _prompt(exchange, options), _plan(asked, options, force))]


def _prompt(exchange: Exchange, options: Options) -> Prompt:
    body = filled(options.frame["prompt"], exchange)
    if "system" in options.frame:
        return as_chat(("system", fill(options.frame["system"], {})), ("user", body))
    return body


def _plan(tasks: Sequence[Task], options: Options, force: bool) -> Plan:
    if not force:
        return (Free(options.max_tokens),)
    steps: list[PlanStep] = []
    for task, key in KEYS.items():
        if task in tasks:
            steps += [Text(f"\n{key}:" if steps else f"{key}:"), Choice(WORDS)]
    return tuple(steps)


def parse(call: Call, completion: Completion, options: Options) -> Parsed:
    """A value that is neither yes, no nor n/a spoils the whole answer (safety-eval); so does a key with two values."""
    scores = {}
    if len(completion.choices) == len(call.tasks):
        shares = {t: share(c, WORDS[:1], WORDS[1:]) for t, c in zip(call.tasks, completion.choices, strict=True)}
        scores = {t: s for t, s in shares.items() if s is not None}
    said: dict[Task, set[bool | None]] = {}
    for key, value in _LINE.findall(completion.text):
        word = value.lower().strip(" .*")
        if word not in _VALUES:
            return Parsed(Labels(), problem="no_verdict", scores=scores)
        said.setdefault(_BY_KEY[key.lower()], set()).add(_VALUES[word])
    if not said:
        return Parsed(Labels(), problem="no_block", scores=scores)
    if any(len(values) > 1 for values in said.values()):
        return Parsed(Labels(), problem="conflict", scores=scores)
    found = {t: next(iter(values)) for t, values in said.items() if t in call.tasks}
    labels = Labels.of({t: label(t, v) for t, v in found.items() if v is not None})
    return Parsed(labels, harm=_harm(completion.text), problem=unread(call, labels), scores=scores)


def _harm(text: str) -> str | None:
    named = dict.fromkeys(v for v in _VIOLATIONS.findall(text) if v.lower() != "none")
    return ", ".join(named)[:80] or None
