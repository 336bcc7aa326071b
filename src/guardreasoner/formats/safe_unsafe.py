"""`safe`, or `unsafe` and a line of violated categories: LLaMA Guard 1 to 4, Aegis Guard 1.0, MD-Judge.

    unsafe
    S1,S9

One task per call: the request alone, or the request and the reply. Where the engine can, the verdict is one scored
choice at the first position that is not a line break, which is the score these families publish (LLaMA Guard 2 model
card: probability of the first token; MD-Judge: first token, the two words only).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from guardreasoner.formats.base import Call, Parsed, fill, label, request_of, share, turns
from guardreasoner.generation import Chat, Choice, Completion, Free, Plan, Prompt, Text
from guardreasoner.types import Exchange, Labels, Task

_VERDICT = re.compile(r"^(?:response:\s*)?(safe|unsafe)\b[ \t.]*(?:\n(.*))?", re.I | re.S)
_CHOSEN = re.compile(r"^(safe|unsafe)[ \t.]*(?:\n(.*))?", re.S)


@dataclass(frozen=True, slots=True)
class Options:
    """What one row may set."""

    frame: Mapping[str, str] = field(default_factory=dict)
    """Templates with `{prompt}` and `{response}` holes by side (`prompt`, `response`); empty = the chat template."""
    one_turn: bool = False
    """Request and reply are one user text, joined by a space (Aegis Guard 1.0, safety-eval `aegis.py`)."""
    parts: bool = False
    """The chat template takes each message's content as a list of parts (LLaMA Guard 3 1B and 4)."""
    template_args: Mapping[str, object] = field(default_factory=dict)
    """Keyword arguments of the chat template."""
    lead: str = ""
    """What the model writes before its verdict and is forced (LLaMA Guard 3: the template ends a line break early)."""
    words: tuple[str, str] = ("unsafe", "safe")
    """The verdict words as they follow the prompt; Llama-2 and Mistral vocabularies put a space before them."""
    categories: int = 24
    """Tokens for the line of categories after a scored verdict; 0 = not asked for."""
    max_tokens: int = 32
    """Tokens where the engine writes freely."""
    policy: Mapping[str, str] = field(default_factory=dict)
    """Categories of the user's own, name to text, in place of the template's (see `policy_arg`)."""
    policy_arg: Literal["", "categories"] = ""
    """The chat template's argument that takes categories; empty = the guard follows no policy but its own."""


def render(exchange: Exchange, tasks: Sequence[Task], options: Options, *, force: bool) -> list[Call]:
    """One call per task; refusal is not a question these guards know."""
    plan = _plan(options, force)
    return [Call((task,), _prompt(exchange, task, options), plan) for task in tasks if task is not Task.refusal]


def _prompt(exchange: Exchange, task: Task, options: Options) -> Prompt:
    reply = task is Task.response_harm
    if not options.frame:
        args = dict(options.template_args) | ({"content_parts": True} if options.parts else {})
        if options.policy_arg and options.policy:
            args[options.policy_arg] = dict(options.policy)
        return Chat(turns(exchange, reply=reply), args)
    prompt, response = request_of(exchange), (exchange.response or "") if reply else ""
    if options.one_turn:
        prompt, response = f"{prompt} {response}".strip(), ""
    side = "response" if reply and "response" in options.frame else "prompt"
    return fill(options.frame[side], {"prompt": prompt, "response": response})


def _plan(options: Options, force: bool) -> Plan:
    if not force:
        return (Free(options.max_tokens),)
    lead = (Text(options.lead),) if options.lead else ()
    tail = (Free(options.categories),) if options.categories else ()
    return (*lead, Choice(options.words), *tail)


def parse(call: Call, completion: Completion, options: Options) -> Parsed:
    """The verdict is the first word; anything else than the two words is not one (llama-stack, safety-eval).

    Where the word was chosen, what the model wrote on after it cannot undo it.
    """
    task = call.tasks[0]
    scores = {}
    if completion.choices:
        score = share(completion.choices[0], options.words[:1], options.words[1:])
        scores = {task: score} if score is not None else {}
    found = (_CHOSEN if completion.choices else _VERDICT).match(completion.text.strip())
    if found is None:
        return Parsed(Labels(), problem="no_verdict", scores=scores)
    unsafe = found.group(1).lower() == "unsafe"
    harm = (found.group(2) or "").strip().split("\n")[0].strip() if unsafe else ""
    return Parsed(Labels.of({task: label(task, unsafe)}), harm=harm[:80] or None, scores=scores)
