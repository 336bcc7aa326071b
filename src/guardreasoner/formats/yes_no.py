"""One question, answered `Yes` or `No`: ShieldGemma, Granite Guardian, HarmBench classifiers, gpt-oss-safeguard.

A call asks about one task and one policy (ShieldGemma: "one policy per call" in the Gemma cookbook), and yes means
harm or violation. The score is the two-way softmax of the yes and no words at the first position of the answer
(ShieldGemma and Granite Guardian model cards), or inside `<score>` (Granite Guardian 3.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from guardreasoner.formats.base import Call, Parsed, as_chat, filled, label, request_of, share, turns
from guardreasoner.generation import Chat, Choice, Completion, Free, Judged, Plan, Prompt, Scaffold, Text
from guardreasoner.types import Exchange, Labels, Task

PolicyArg = Literal["", "guideline", "risk_definition", "custom_criteria", "system"]

_THOUGHT = re.compile(r"^.*?</think>|^.*(?:<\|channel\|>final<\|message\|>|assistantfinal)", re.S)
_SCORE = re.compile(r"<score>\s*(\w+)", re.I)
_FIELD = re.compile(r"\"violation\"\s*:\s*\"?(\w+)", re.I)
_FIRST = re.compile(r"^\W*(\w+)")
_YES = frozenset({"yes", "1", "true"})
_NO = frozenset({"no", "0", "false"})


@dataclass(frozen=True, slots=True)
class Options:
    """What one row may set."""

    frame: Mapping[str, str] = field(default_factory=dict)
    """Templates with `{prompt}` and `{response}` holes by side; empty = the chat template."""
    template_args: Mapping[str, object] = field(default_factory=dict)
    """Keyword arguments of the chat template."""
    policies: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Per side (`prompt`, `response`, `refusal`) policy name -> text, one call each; empty = the template's own."""
    policy: Mapping[str, str] = field(default_factory=dict)
    """The user's own policies, name -> text, in place of `policies` on every side."""
    policy_arg: PolicyArg = ""
    """Where a policy text goes: an argument of the chat template, a key of `guardian_config`, or a system message."""
    ask: str = ""
    """What a system message says after the policy: how to answer."""
    lead: str = ""
    """Forced text before the answer word (`<score>`)."""
    yes_words: tuple[str, ...] = ("Yes",)
    """Spellings of yes, the one that is written first."""
    no_words: tuple[str, ...] = ("No",)
    """Spellings of no."""
    scored: bool = True
    """Whether the answer word is the first thing after the prompt and the lead; false = the model reasons first."""
    max_tokens: int = 16
    """Tokens where the engine writes freely."""


def render(exchange: Exchange, tasks: Sequence[Task], options: Options, *, force: bool) -> list[Call]:
    """One call per task and policy."""
    plan = _plan(options, force)
    calls = []
    for task in tasks:
        asked = options.policy or options.policies.get(_side(task), {}) or {"": ""}
        calls += [Call((task,), _prompt(exchange, task, text, options), plan, name) for name, text in asked.items()]
    return calls


def _side(task: Task) -> str:
    return {Task.prompt_harm: "prompt", Task.response_harm: "response", Task.refusal: "refusal"}[task]


def _prompt(exchange: Exchange, task: Task, policy: str, options: Options) -> Prompt:
    reply = task is not Task.prompt_harm
    if options.frame:
        return filled(options.frame[_side(task)], exchange)
    if options.policy_arg == "system":
        return as_chat(("system", (Scaffold(policy + options.ask),)), ("user", _content(exchange, reply)))
    return Chat(turns(exchange, reply=reply), _arguments(policy, options))


def _content(exchange: Exchange, reply: bool) -> tuple[Scaffold | Judged, ...]:
    """The text to classify, as one message under a policy in the system message."""
    prompt = Judged(request_of(exchange))
    if not reply:
        return (Scaffold("User request:\n"), prompt)
    return (Scaffold("User request:\n"), prompt, Scaffold("\n\nAI reply:\n"), Judged(exchange.response or ""))


def _arguments(policy: str, options: Options) -> dict[str, object]:
    args = dict(options.template_args)
    if policy and options.policy_arg == "guideline":
        args["guideline"] = policy
    elif policy and options.policy_arg:
        args["guardian_config"] = {options.policy_arg: policy}
    return args


def _plan(options: Options, force: bool) -> Plan:
    if not force or not options.scored:
        return (Free(options.max_tokens),)
    return (*((Text(options.lead),) if options.lead else ()), Choice((*options.yes_words, *options.no_words)))


def parse(call: Call, completion: Completion, options: Options) -> Parsed:
    """The last `<score>`, the field `violation`, or else the first word after any reasoning."""
    task = call.tasks[0]
    score = share(completion.choices[0], options.yes_words, options.no_words) if completion.choices else None
    scores = {task: score} if score is not None else {}
    word = _word(completion.text)
    if word not in _YES | _NO:
        return Parsed(Labels(), problem="no_verdict", scores=scores)
    harm = call.policy if word in _YES and call.policy else None
    return Parsed(Labels.of({task: label(task, word in _YES)}), harm=harm, scores=scores)


def _word(text: str) -> str:
    said = _THOUGHT.sub("", text, count=1).strip()
    found = _SCORE.findall(said) or _FIELD.findall(said) or _FIRST.findall(said)
    return found[-1].lower() if found else ""
