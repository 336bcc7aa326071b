"""From OpenAI messages to exchanges: whatever a client can make a model read is judged, or named as unreadable.

A conversation is a list of rounds (what was said to the model, what it answered). Every round is judged once: one that
passed is remembered, and one that was blocked is removed from what the model reads, so that it does not block every
later request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from guardreasoner.serve.chat.fields import REQUEST
from guardreasoner.serve.core.budget import RecentEntries
from guardreasoner.serve.decide import blocks
from guardreasoner.serve.fields import LooseText
from guardreasoner.serve.policy import Rules
from guardreasoner.types import SETTLED, Exchange, Message, Verdict

SPOKEN = ("content", "reasoning_content", "reasoning", "thinking_blocks", "refusal")
"""Where a message's words are."""
PART_TEXTS = ("text", "refusal", "thinking", "reasoning", "reasoning_content", "summary", "content")
"""Where the words of a content part are."""

REQUEST_CHARACTERS = 1_000
"""Of the request, from its end, that is judged with a reply or a window of one: it was judged itself before."""

Judge = Callable[[Sequence[Exchange]], Awaitable[Sequence[Verdict]]]
Side = Literal["in", "out"]


@dataclass(frozen=True, slots=True)
class Words:
    """One piece of a round: a message, or a part of its content."""

    side: Side
    """Said to the model, or by it."""
    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Round:
    """What was said to the model, and what it answered."""

    prompt: str
    response: str | None
    places: tuple[int, ...]
    """Indices of its messages."""
    linked: bool = False
    """It answers a tool call of the round before it."""
    parts: tuple[Words, ...] = ()
    """Its messages and their parts."""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request as rounds."""

    turns: tuple[Round, ...]
    alone: tuple[Round, ...] = ()
    """Instructions, tool descriptions, names and labels: judged by themselves."""
    unread: tuple[str, ...] = ()
    """Where there is something that cannot be judged, and why; never the thing itself."""
    messages: tuple[Any, ...] = ()
    """The messages as they may be sent on."""

    def chain(self, number: int) -> tuple[int, ...]:
        """A round with those that its tool calls connect it to."""
        first = last = number
        while self.turns[first].linked and first:
            first -= 1
        while last + 1 < len(self.turns) and self.turns[last + 1].linked:
            last += 1
        return tuple(range(first, last + 1))


@dataclass(frozen=True, slots=True)
class JudgedConversation:
    """What came of a conversation."""

    verdict: Verdict | None
    """The one that decides: what blocks, or that of the last round; None = there was nothing to judge."""
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
    """Rounds of a list of OpenAI messages; never raises."""
    if not isinstance(messages, list) or not messages:
        return Conversation((), unread=("messages is no list of messages",))
    checked = REQUEST.read(messages, "messages", "messages")
    unread = list(checked.refused)
    alone, said = [round_of(loose) for loose in checked.loose], []
    for place, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if not isinstance(role, str):
            unread.append(f"messages[{place}] has no role")
            continue
        text, parts = _read_message(message, place, "out" if role == "assistant" else "in")
        if role in trusted or not text:
            text, parts = "", ()
        if role in ("system", "developer"):
            alone += [Round(text, None, (place,), parts=parts, where=f"messages[{place}]")] if text else []
        else:
            said.append(_Spoken(role, text, place, parts))
    turns = []
    while said:
        turns.append(_take_round(said))
    return Conversation(tuple(turns), tuple(alone), tuple(unread), tuple(checked.kept))


def round_of(loose: LooseText) -> Round:
    """A text outside any round, judged by itself."""
    return Round(loose.text, None, (), where=loose.where)


def read_value(value: Any) -> str:
    """Any JSON value as the text that a model may get to read (tool descriptions, schemas)."""
    return json.dumps(value, ensure_ascii=False)


def spoken(message: Mapping[str, Any]) -> list[str]:
    """All that a message says, each piece by itself: text, reasoning, refusal, tool calls."""
    texts = [text for name in SPOKEN for text in _texts(message.get(name))]
    calls = message.get("tool_calls")
    legacy = message.get("function_call")
    found = [*(calls if isinstance(calls, list) else []), *([{"function": legacy}] if legacy else [])]
    texts += [shown for call in found if (shown := _shown_call(call))]
    return texts


def exchange_of(conversation: Conversation, number: int, rules: Rules, cut: frozenset[int] = frozenset()) -> Exchange:
    """One round with as much before it as the window policy says, less what was cut."""
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


def end_of(prompt: str, context: Sequence[Message]) -> tuple[str, tuple[Message, ...]]:
    """The last `REQUEST_CHARACTERS` of a request and of what came before it."""
    prompt = prompt[-REQUEST_CHARACTERS:]
    left, kept = REQUEST_CHARACTERS - len(prompt), []
    for message in reversed(context):
        if left <= 0:
            break
        kept.append(Message(message.role, message.content[-left:]))
        left -= len(message.content)
    return prompt, tuple(reversed(kept))


def pieces_of(turn: Round, whole: Exchange, *, lone: bool = True) -> list[tuple[Exchange, str]]:
    """All that is judged of one round, and where each piece stands: the whole, without what came before it, its parts.

    Args:
        turn: the round.
        whole: the same as an exchange, in its window.
        lone: False = the guard judges a turn without its context, and a reply without its request, by itself.
    """
    found = [(whole, turn.where)]
    seen = {(whole.prompt, whole.response), (whole.prompt, None)}
    if not lone:
        seen.add(("", whole.response))
    elif whole.context:
        found.append((replace(whole, context=()), turn.where or "the last turn"))
    for part in turn.parts:
        texts = (part.text, None) if part.side == "in" else ("", part.text)
        if texts not in seen and (part.side == "in" or whole.response is not None):
            seen.add(texts)
            found.append((Exchange(part.where, *texts), part.where))
    return found


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that decides: known harm, then what could not be judged, then the first."""

    def rank(verdict: Verdict) -> int:
        if blocks(verdict):
            return 0 if verdict.status in SETTLED else 1
        return 2 if verdict.fail_mode is not None else 3 if verdict.flagged else 4

    return min(verdicts, key=rank)


async def examine(
    conversation: Conversation, rules: Rules, memory: Memory, judge: Judge, *, lone: bool = True
) -> JudgedConversation:
    """Judge what was not judged before: instructions and earlier rounds by themselves, the last one in its window."""
    earlier = conversation.turns[:-1]
    alone = [t for t in conversation.alone if _says(t) and memory.recall(t.prompt, t.response) is not False]
    unknown = [t for t in earlier if _says(t) and memory.recall(t.prompt, t.response) is None]
    asked = list({(t.prompt, t.response): t for t in (*unknown, *alone)}.values())
    rounds = [(t, Exchange(t.where or "turn", t.prompt, t.response)) for t in asked]
    decided = await _judge_rounds(rounds, judge, lone)
    stops, open_count = [], 0
    for turn, verdict in zip(asked, decided, strict=True):
        memory.keep(turn.prompt, turn.response, verdict)
        open_count += verdict.fail_mode == "open"
        if blocks(verdict) and (verdict.status not in SETTLED or any(turn is t for t in alone)):
            stops.append(verdict)
    if stops:
        return JudgedConversation(worst(stops))
    cut = {
        place
        for number, turn in enumerate(earlier)
        if memory.recall(turn.prompt, turn.response)
        for n in conversation.chain(number)
        for place in conversation.turns[n].places
    }
    if not conversation.turns:
        return JudgedConversation(None, passed_unjudged=open_count)
    last = exchange_of(conversation, len(conversation.turns) - 1, rules, frozenset(cut))
    if not (last.prompt or last.response):
        return JudgedConversation(None, frozenset(cut), last.context, open_count)
    (verdict,) = await _judge_rounds([(conversation.turns[-1], last)], judge, lone)
    if not blocks(verdict):
        memory.keep(last.prompt, last.response, verdict)
    if cut.intersection(conversation.turns[-1].places):  # the last round goes on from one that was blocked
        verdict = _as_blocked(verdict)
    return JudgedConversation(verdict, frozenset(cut), last.context, open_count + (verdict.fail_mode == "open"))


async def _judge_rounds(rounds: Sequence[tuple[Round, Exchange]], judge: Judge, lone: bool) -> list[Verdict]:
    """One verdict per round, the worst of its pieces; all of them are asked at once."""
    pieces = [pieces_of(turn, whole, lone=lone) for turn, whole in rounds]
    asked = [exchange for several in pieces for exchange, _ in several]
    verdicts = iter(await judge(asked) if asked else ())
    decided = []
    for several in pieces:
        decided.append(worst([_placed(next(verdicts), where) for _, where in several]))
    return decided


@dataclass(frozen=True, slots=True)
class Memory:
    """Which rounds one caller had judged, and whether they were blocked; holds digests, no text."""

    key: str
    kept: RecentEntries[bool]

    def recall(self, prompt: str, response: str | None) -> bool | None:
        """Whether a round was blocked; None = it was not judged, or too long ago."""
        return self.kept.get(self._place(prompt, response))

    def keep(self, prompt: str | bytes, response: str | None, verdict: Verdict) -> None:
        """Remember a verdict; what was not judged is not remembered. A prompt may be given by its digest."""
        if verdict.status in SETTLED:
            self.kept.put(self._place(prompt, response), blocks(verdict))

    def _place(self, prompt: str | bytes, response: str | None) -> tuple[str, bytes, bytes | None]:
        asked = prompt if isinstance(prompt, bytes) else digest_of(prompt)
        return self.key, asked, None if response is None else digest_of(response)


def digest_of(text: str) -> bytes:
    """What stands for a text that is not kept."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _placed(verdict: Verdict, where: str) -> Verdict:
    return replace(verdict, notes={**verdict.notes, "where": where}) if where else verdict


def _as_blocked(verdict: Verdict) -> Verdict:
    notes = {**verdict.notes, "action": "block", "actions": {}, "continues": "a blocked turn"}
    return replace(verdict, flagged=True, notes=notes)


def _says(turn: Round) -> bool:
    return bool(turn.prompt or turn.response)


@dataclass(frozen=True, slots=True)
class _Spoken:
    """One message that is part of the talk."""

    role: str
    text: str
    place: int
    parts: tuple[Words, ...]

    @property
    def side(self) -> Side:
        return "out" if self.role == "assistant" else "in"


def _take_round(said: list[_Spoken]) -> Round:
    taken: list[_Spoken] = []
    while said and not (any(t.side == "out" for t in taken) and said[0].side == "in"):
        taken.append(said.pop(0))
    texts = {side: [t.text for t in taken if t.side == side] for side in ("in", "out")}
    parts = tuple(p for t in taken for p in t.parts)
    return Round(
        "\n".join(filter(None, texts["in"])),
        "\n".join(filter(None, texts["out"])) if texts["out"] else None,
        tuple(t.place for t in taken),
        linked=taken[0].role in ("tool", "function"),
        parts=parts,
    )


def _read_message(message: Mapping[str, Any], place: int, side: Side) -> tuple[str, tuple[Words, ...]]:
    """The text of a message, and its parts: itself and, where there are several, the pieces of its content."""
    where = f"messages[{place}]"
    pieces = spoken(message)
    name = message.get("name")
    text = "\n".join(pieces)
    text = f"{name}: {text}" if isinstance(name, str) and name else text
    parts = [Words(side, text, where)] if text else []
    if len(pieces) > 1:
        parts += [Words(side, piece, f"{where}, part {number}") for number, piece in enumerate(pieces)]
        parts += [Words(side, "".join(pieces), where)] if _cuts_a_word(pieces) else []
    return text, tuple(parts)


def _cuts_a_word(pieces: Sequence[str]) -> bool:
    """Whether a word goes on from one part into the next: many models read parts without anything between them."""
    return any(a[-1:].isalnum() and b[:1].isalnum() for a, b in pairwise(pieces))


def _texts(value: Any) -> list[str]:
    """The texts in a content: itself, or its parts, however deep a part holds them."""
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    if isinstance(value, Mapping):
        return [text for name in PART_TEXTS for text in _texts(value.get(name))]
    return []


def _shown_call(call: Any) -> str:
    """A tool call as text."""
    if not isinstance(call, Mapping):
        return ""
    for kind, argument in (("function", "arguments"), ("custom", "input")):
        tool = call.get(kind)
        if isinstance(tool, Mapping):
            given = tool.get(argument)
            text = given if isinstance(given, str) else read_value(given) if given else ""
            return f"[tool call] {tool.get('name') or ''}({text})"
    return ""
