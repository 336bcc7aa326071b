"""From OpenAI messages to exchanges: all that a client can make a model read is text here, or named as unreadable.

A conversation is a list of turns (what was said to the model, what it answered). Every turn is judged once: one that
passed is remembered and not judged again, and one that was blocked is cut out of what the model gets to read, so that
it does not block every later request. Turns that hang together by tool calls are cut together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from guardreasoner.serve.core.budget import Recent
from guardreasoner.serve.policy import Rules, blocks
from guardreasoner.types import Exchange, Message, Verdict

_TEXT = frozenset(("role", "content", "name"))
FIELDS: Mapping[str, frozenset[str]] = {
    "system": _TEXT,
    "developer": _TEXT,
    "user": _TEXT,
    "tool": _TEXT | {"tool_call_id"},
    "function": _TEXT,
    "assistant": _TEXT | {"refusal", "tool_calls", "function_call", "reasoning", "reasoning_content"},
}
"""Roles that exist and the fields of each that can be read as text."""
UNREAD = frozenset(("cache_control", "id", "index", "signature"))
"""Fields that no model reads as text."""
PART_KINDS = ("text", "refusal", "thinking", "reasoning")
"""Content parts whose text is under the name of their kind."""
SPOKEN = ("content", "reasoning_content", "reasoning", "refusal")
"""Where a model's words are."""

Judge = Callable[[Sequence[Exchange]], Awaitable[Sequence[Verdict]]]


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said to the model, and what it answered."""

    prompt: str
    response: str | None
    places: tuple[int, ...]
    """Indices of its messages."""
    linked: bool = False
    """It answers a tool call of the turn before it."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request as turns."""

    turns: tuple[Turn, ...]
    alone: tuple[Turn, ...] = ()
    """Instructions and tool descriptions: judged by themselves."""
    unread: tuple[str, ...] = ()
    """Where there was something that cannot be judged; never the thing itself."""

    def chain(self, number: int) -> tuple[int, ...]:
        """The turns that hang together with one of them."""
        first = last = number
        while self.turns[first].linked and first:
            first -= 1
        while last + 1 < len(self.turns) and self.turns[last + 1].linked:
            last += 1
        return tuple(range(first, last + 1))


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of a conversation."""

    verdict: Verdict | None
    """The one that decides: what blocks, or that of the last turn; None = there was nothing to judge."""
    cut: frozenset[int] = frozenset()
    """Messages that the model must not read."""
    context: tuple[Message, ...] = ()
    """What is judged together with the reply."""
    passed_unjudged: int = 0
    """How many exchanges passed without a verdict (fail mode `open`)."""

    @property
    def blocked(self) -> bool:
        """Whether the whole request must stop."""
        return self.verdict is not None and blocks(self.verdict)


def read_messages(messages: Any, trusted: Sequence[str] = ()) -> Conversation:
    """Turns of a list of OpenAI messages; never raises."""
    if not isinstance(messages, list) or not messages:
        return Conversation((), unread=("messages",))
    unread: list[str] = []
    alone: list[Turn] = []
    turns: list[Turn] = []
    said: list[tuple[Literal["in", "out"], str, int, str]] = []
    for place, message in enumerate(messages):
        role, text = _read_message(message, place, unread)
        text = "" if role in trusted else text
        if role in ("system", "developer"):
            alone += [Turn(text, None, (place,))] if text else []
        elif role:
            said.append(("out" if role == "assistant" else "in", text, place, role))
    while said:
        turns.append(_take_turn(said))
    return Conversation(tuple(turns), tuple(alone), tuple(unread))


def read_value(value: Any) -> str:
    """Any JSON value as the text that a model may get to read (tool descriptions, schemas)."""
    return json.dumps(value, ensure_ascii=False)


def spoken(message: Mapping[str, Any], where: str, unread: list[str]) -> str:
    """All that an assistant message says: text, reasoning, refusal, tool calls."""
    parts = [_content(message.get(name), f"{where}.{name}", unread) for name in SPOKEN]
    calls = message.get("tool_calls") or []
    legacy = message.get("function_call")
    found = [*(calls if isinstance(calls, list) else [calls]), *([{"function": legacy}] if legacy else [])]
    parts += [_call(call, f"{where}.tool_calls", unread) for call in found]
    return "\n".join(p for p in parts if p)


def exchange_of(conversation: Conversation, number: int, rules: Rules, cut: frozenset[int] = frozenset()) -> Exchange:
    """One turn with as much before it as the window policy says, less what was cut."""
    turn = conversation.turns[number]
    before = [t for t in conversation.turns[:number] if not cut.intersection(t.places)]
    context = [
        Message(role, text)
        for t in before
        for role, text in (("user", t.prompt), ("assistant", t.response or ""))
        if text
    ]
    kept = {"last": [], "last_n": context[-rules.window_n :], "full": context}[rules.window]
    return Exchange(f"turn-{number}", turn.prompt, turn.response, tuple(kept))


async def examine(conversation: Conversation, rules: Rules, memory: Memory, judge: Judge) -> Examined:
    """Judge what was not judged before: instructions and earlier turns by themselves, the last turn in its window."""
    earlier = conversation.turns[:-1]
    unknown = [t for t in (*conversation.alone, *earlier) if _says(t) and memory.recall(t.prompt, t.response) is None]
    asked = [Exchange(f"part-{i}", t.prompt, t.response) for i, t in enumerate(unknown)]
    open_count = 0
    for turn, verdict in zip(unknown, await judge(asked) if asked else (), strict=True):
        if blocks(verdict) and (verdict.status != "ok" or turn in conversation.alone):
            return Examined(verdict)
        memory.keep(turn.prompt, turn.response, verdict)
        open_count += verdict.fail_mode == "open"
    cut: set[int] = set()
    for number, turn in enumerate(earlier):
        if memory.recall(turn.prompt, turn.response):
            cut |= {p for n in conversation.chain(number) for p in conversation.turns[n].places}
    if not conversation.turns:
        return Examined(None, passed_unjudged=open_count)
    last = exchange_of(conversation, len(conversation.turns) - 1, rules, frozenset(cut))
    if not (last.prompt or last.response):
        return Examined(None, frozenset(cut), last.context, open_count)
    verdict = (await judge([last]))[0]
    if not blocks(verdict):
        memory.keep(last.prompt, last.response, verdict)
    if cut.intersection(conversation.turns[-1].places):  # the last turn goes on from one that was blocked
        verdict = _as_blocked(verdict)
    return Examined(verdict, frozenset(cut), last.context, open_count + (verdict.fail_mode == "open"))


@dataclass(frozen=True, slots=True)
class Memory:
    """Which turns one caller had judged, and whether they were blocked; holds digests, no text."""

    key: str
    kept: Recent[bool]

    def recall(self, prompt: str, response: str | None) -> bool | None:
        """Whether a turn was blocked; None = it was not judged, or too long ago."""
        return self.kept.get(self._place(prompt, response))

    def keep(self, prompt: str, response: str | None, verdict: Verdict) -> None:
        """Remember a verdict; what was not judged is not remembered."""
        if verdict.status == "ok":
            self.kept.put(self._place(prompt, response), blocks(verdict))

    def _place(self, prompt: str, response: str | None) -> tuple[str, bytes]:
        content = json.dumps([prompt, response]).encode()
        return self.key, hashlib.sha256(content).digest()


def _as_blocked(verdict: Verdict) -> Verdict:
    return replace(verdict, flagged=True, notes={**verdict.notes, "action": "block", "continues": "a blocked turn"})


def _says(turn: Turn) -> bool:
    return bool(turn.prompt or turn.response)


def _take_turn(said: list[tuple[Literal["in", "out"], str, int, str]]) -> Turn:
    places: list[int] = []
    texts: dict[str, list[str]] = {"in": [], "out": []}
    linked = said[0][3] in ("tool", "function")
    while said and not (texts["out"] and said[0][0] == "in"):
        side, text, place, _ = said.pop(0)
        texts[side].append(text)
        places.append(place)
    response = "\n".join(filter(None, texts["out"])) if texts["out"] else None
    return Turn("\n".join(filter(None, texts["in"])), response, tuple(places), linked)


def _read_message(message: Any, place: int, unread: list[str]) -> tuple[str, str]:
    where = f"messages[{place}]"
    role = message.get("role") if isinstance(message, Mapping) else None
    if not isinstance(role, str) or role not in FIELDS:
        unread.append(where)
        return "", ""
    known = FIELDS[role] | UNREAD
    if any(value is not None and name not in known for name, value in message.items()):
        unread.append(where)
    name = message.get("name")
    text = spoken(message, where, unread) if role == "assistant" else _content(message.get("content"), where, unread)
    if name is not None and not isinstance(name, str):
        unread.append(f"{where}.name")
    return role, f"{name}: {text}" if isinstance(name, str) and name else text


def _content(content: Any, where: str, unread: list[str]) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        unread.append(where)
        return ""
    texts = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        value = part.get(kind) if kind in PART_KINDS else None
        if not isinstance(value, str) or any(k not in UNREAD | {"type", kind} for k in part):
            unread.append(f"{where}[{number}]")
        else:
            texts.append(value)
    return "\n".join(texts)


def _call(call: Any, where: str, unread: list[str]) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    known = isinstance(function, Mapping) and set(call) <= {"id", "type", "function"} | UNREAD
    if not known or not set(function) <= {"name", "arguments"}:  # type: ignore[arg-type]
        unread.append(where)
        return ""
    return f"[tool call] {function.get('name') or ''}({function.get('arguments') or ''})"  # type: ignore[union-attr]
