"""What a gateway may pass on: the decisions behind LiteLLM's guardrail API, over HTTP and in its own process alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

from guardreasoner.serve.chat.conversation import (
    Conversation,
    Judge,
    Memory,
    Turn,
    examine,
    read_messages,
    read_value,
    spoken,
)
from guardreasoner.serve.policy import REPLY_TASKS, Rules, blocks
from guardreasoner.types import Exchange, Message, Verdict


class GuardrailRequest(BaseModel):
    """The body, as LiteLLM 1.106 sends it; other fields say nothing that is judged."""

    input_type: Literal["request", "response"]
    texts: list[str] | None = None
    images: list[str] | None = None
    tools: list[Any] | None = None
    tool_calls: list[Any] | None = None
    structured_messages: list[Any] | None = None
    litellm_call_id: str | None = Field(None, max_length=200)
    additional_provider_specific_params: dict[str, Any] | None = None


Call = tuple[str, tuple[Message, ...]]
"""A remembered request: its last turn and what came before it."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """How to decide for one caller."""

    rules: Rules
    memory: Memory
    judge: Judge
    count_unread: Callable[[int], None]
    """Told how many things passed unread (fail mode `open`)."""

    async def request(self, body: GuardrailRequest) -> tuple[dict[str, Any], Call | None]:
        """The answer to a request, and what to remember of it."""
        talk = _conversation(body, self.rules)
        if refusal := self._unread((*talk.unread, *(["images"] if body.images else []))):
            return refusal, None
        found = await examine(talk, self.rules, self.memory, self.judge)
        if found.blocked and found.verdict is not None:
            return self._blocked(found.verdict), None
        call = (talk.turns[-1].prompt, found.context) if talk.turns else None
        if not found.cut:
            return _passed(found.verdict), call
        cut = {t for p in found.cut for t in _raw_texts(body.structured_messages or [], p)}
        texts = [self.rules.message if t in cut else t for t in body.texts or []]
        return {"action": "GUARDRAIL_INTERVENED", "texts": texts}, call

    async def response(self, body: GuardrailRequest, call: Call | None) -> dict[str, Any]:
        """The answer to a reply, judged together with the request it answers where that is known."""
        unread: list[str] = ["images"] if body.images else []
        calls = spoken({"tool_calls": body.tool_calls or []}, "tool_calls", unread)
        if refusal := self._unread(unread):
            return refusal
        prompt, context = call or ("", ())
        replies = [t for t in (*(body.texts or []), calls) if t]
        if not replies:
            return {"action": "NONE"}
        asked = [Exchange(f"reply-{i}", prompt, text, context) for i, text in enumerate(replies)]
        verdicts = await self.judge(asked)
        for exchange, verdict in zip(asked, verdicts, strict=True):
            self.memory.keep(prompt, exchange.response, verdict)
        stopped = next((v for v in verdicts if blocks(v, REPLY_TASKS)), None)
        return self._blocked(stopped) if stopped else _passed(verdicts[0])

    def _unread(self, unread: Sequence[str]) -> dict[str, Any] | None:
        """A block when there is something that cannot be judged, under `closed`; counted under `open`."""
        if not unread:
            return None
        if self.rules.fail_mode == "closed" and not self.rules.shadow:
            reason = f"{self.rules.message} ({unread[0]} cannot be judged)"
            return {"action": "BLOCKED", "blocked_reason": reason, "judged": False}
        self.count_unread(len(unread))
        return None

    def _blocked(self, verdict: Verdict) -> dict[str, Any]:
        why = "" if verdict.status == "ok" else f" (not judged: {verdict.status})"
        return {"action": "BLOCKED", "blocked_reason": self.rules.message + why, "judged": verdict.status == "ok"}


def _conversation(body: GuardrailRequest, rules: Rules) -> Conversation:
    """The messages, then what no message holds: loose texts and tool descriptions, each by itself."""
    rows = body.structured_messages
    talk = read_messages(rows, rules.trusted_roles) if rows else Conversation(())
    held = {t for place in range(len(rows or [])) for t in _raw_texts(rows or [], place)}
    loose = [Turn(t, None, ()) for t in body.texts or [] if t and t not in held]
    if body.tools and "tool" not in rules.trusted_roles:
        loose.append(Turn(read_value(body.tools), None, ()))
    if body.tool_calls and not rows:
        loose.append(Turn(read_value(body.tool_calls), None, ()))
    return Conversation(talk.turns, (*talk.alone, *loose), talk.unread)


def _raw_texts(rows: Sequence[Any], place: int) -> list[str]:
    content = rows[place].get("content") if isinstance(rows[place], Mapping) else None
    parts: list[Any] = content if isinstance(content, list) else [{"text": content}]
    return [p["text"] for p in parts if isinstance(p, Mapping) and isinstance(p.get("text"), str)]


def _passed(verdict: Verdict | None) -> dict[str, Any]:
    """LiteLLM ignores what it does not know; a person who reads the wire sees what was not judged."""
    return {
        "action": "NONE",
        "guardreasoner": {"status": verdict.status, "fail_mode": verdict.fail_mode} if verdict is not None else None,
    }
