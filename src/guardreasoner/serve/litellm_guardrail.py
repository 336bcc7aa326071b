"""What a gateway may pass on: decisions behind LiteLLM's guardrail API, over HTTP and in the gateway's own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, Field

from guardreasoner.serve.chat import fields as chat_fields
from guardreasoner.serve.chat.conversation import (
    Conversation,
    Judge,
    Memory,
    digest_of,
    end_of,
    examine,
    read_messages,
    read_value,
    round_of,
    spoken,
    worst,
)
from guardreasoner.serve.decide import REPLY_TASKS, blocks
from guardreasoner.serve.fields import Field as Row
from guardreasoner.serve.fields import FieldTable, LooseText
from guardreasoner.serve.policy import Rules
from guardreasoner.types import Exchange, Message, Verdict

FIELDS = FieldTable(
    (
        Row("input_type", "=request|response"),
        Row("texts[]", "text"),
        Row("images[]", "refused"),
        Row("tools", "value"),
        Row("tool_calls", "value"),
        Row("structured_messages", "value"),
        *(
            Row(name, "note")
            for name in ("litellm_call_id", "litellm_trace_id", "litellm_version", "model", "request_headers",
                         "request_data", "additional_provider_specific_params")
        ),
    )
)  # fmt: skip
"""LiteLLM 1.106's body. `structured_messages` and `tool_calls` are read by the table of chat messages."""


class GuardrailRequest(BaseModel):
    """The body, once its fields have been checked."""

    input_type: Literal["request", "response"]
    texts: list[str] | None = None
    images: list[str] | None = None
    tools: list[Any] | None = None
    tool_calls: list[Any] | None = None
    structured_messages: list[Any] | None = None
    litellm_call_id: str | None = Field(None, max_length=200)
    additional_provider_specific_params: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RememberedCall:
    """What is kept of a request until its reply comes."""

    digest: bytes
    """Of its last turn."""
    prompt: str = ""
    """The end of that turn."""
    context: tuple[Message, ...] = ()
    """The end of what came before it."""


UNKNOWN = RememberedCall(digest_of(""))


@dataclass(frozen=True, slots=True)
class Gateway:
    """How to decide for one caller."""

    rules: Rules
    memory: Memory
    judge: Judge
    count_unread: Callable[[int], None]
    """Called with the number of items that passed unread (fail mode `open`)."""
    lone: bool = True
    """Whether the guard must be asked about parts by themselves."""

    async def request(
        self, body: GuardrailRequest, unread: Sequence[str] = ()
    ) -> tuple[dict[str, Any], RememberedCall | None]:
        """The answer to a request, and what to remember of it."""
        talk = _conversation(body, self.rules)
        if refusal := self._unread((*unread, *talk.unread)):
            return refusal, None
        found = await examine(talk, self.rules, self.memory, self.judge, lone=self.lone)
        if found.blocked and found.verdict is not None:
            return self._blocked(found.verdict), None
        asked = talk.turns[-1].prompt if talk.turns else ""
        call = RememberedCall(digest_of(asked), *end_of(asked, found.context)) if talk.turns else None
        if not found.cut:
            return _passed(found.verdict), call
        texts = self._texts_without(body, found.cut)
        if texts is None:
            reason = f"{self.rules.message} (an earlier turn that was blocked cannot be cut out)"
            return {"action": "BLOCKED", "blocked_reason": reason, "judged": True}, None
        return {"action": "GUARDRAIL_INTERVENED", "texts": texts}, call

    async def response(
        self, body: GuardrailRequest, call: RememberedCall | None, unread: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The answer to a reply, judged together with the end of its request where that is known, and by itself."""
        checked = chat_fields.REQUEST.read(body.tool_calls or [], "tool_calls", "messages[].tool_calls")
        if refusal := self._unread((*unread, *checked.refused)):
            return refusal
        call = call or UNKNOWN
        calls = "\n".join(spoken({"tool_calls": body.tool_calls}))
        replies = [t for t in (*(body.texts or []), calls) if t]
        labels = [Exchange(loose.where, loose.text) for loose in checked.loose]
        if not replies and not labels:
            return {"action": "NONE"}
        with_request = [Exchange(f"reply-{i}", call.prompt, text, call.context) for i, text in enumerate(replies)]
        alone = [Exchange(e.id, "", e.response) for e in with_request if self.lone and (e.prompt or e.context)]
        verdicts = await self.judge([*with_request, *alone, *labels])
        bad = [v for v in verdicts[len(with_request) + len(alone) :] if blocks(v)]
        bad += [v for v in verdicts[: len(with_request) + len(alone)] if blocks(v, REPLY_TASKS)]
        if bad:
            return self._blocked(worst(bad))
        for exchange, verdict in zip(with_request, verdicts[: len(with_request)], strict=True):
            self.memory.keep(call.digest, exchange.response, verdict)
        return _passed(worst(verdicts))

    def _unread(self, unread: Sequence[str]) -> dict[str, Any] | None:
        """A block when there is something that cannot be judged, under `closed`; counted under `open`."""
        if not unread:
            return None
        if self.rules.stops_unread:
            return {"action": "BLOCKED", "blocked_reason": f"{self.rules.message} ({unread[0]})", "judged": False}
        self.count_unread(len(unread))
        return None

    def _blocked(self, verdict: Verdict) -> dict[str, Any]:
        judged = verdict.status == "ok" or bool(verdict.notes.get("flagged"))
        reason = self.rules.answer(verdict) + ("" if judged else f" (not judged: {verdict.status})")
        return {"action": "BLOCKED", "blocked_reason": reason, "judged": judged}

    def _texts_without(self, body: GuardrailRequest, cut: frozenset[int]) -> list[str] | None:
        """The texts with those of some messages replaced, place by place; None where texts cannot hold the cut.

        LiteLLM puts back texts and nothing else: what a message holds beside them would stay for the model to read.
        """
        rows, texts = body.structured_messages or [], body.texts or []
        places = list(_texts_in_order(rows))
        if [text for _, text in places] != texts or any(_holds_more(rows[place]) for place in cut):
            return None
        return [self.rules.message if place in cut else text for place, text in places]


def _conversation(body: GuardrailRequest, rules: Rules) -> Conversation:
    """The messages, then what no message holds: loose texts and tool descriptions, each by itself."""
    rows = body.structured_messages
    talk = read_messages(rows, rules.trusted_roles) if rows else Conversation(())
    held = {text for _, text in _texts_in_order(rows or [])}
    loose = [LooseText(f"texts[{i}]", t) for i, t in enumerate(body.texts or []) if t and t not in held]
    if body.tools and "tool" not in rules.trusted_roles:
        loose.append(LooseText("tools", read_value(body.tools)))
    if body.tool_calls and not rows:
        loose.append(LooseText("tool_calls", read_value(body.tool_calls)))
    return replace(talk, alone=(*talk.alone, *map(round_of, loose)))


def _texts_in_order(rows: Sequence[Any]) -> Iterator[tuple[int, str]]:
    """Every text as LiteLLM finds them in messages, with the place of its message."""
    for place, row in enumerate(rows):
        content = row.get("content") if isinstance(row, Mapping) else None
        parts: Sequence[Any] = content if isinstance(content, list) else [{"text": content}]
        for part in parts:
            if isinstance(part, Mapping) and isinstance(part.get("text"), str):
                yield place, part["text"]


def _holds_more(row: Any) -> bool:
    """Whether a message says anything that is not in its texts."""
    if not isinstance(row, Mapping):
        return True
    found = [text for _, text in _texts_in_order([row]) if text]
    return spoken(row) != found or bool(row.get("name"))


def _passed(verdict: Verdict | None) -> dict[str, Any]:
    """LiteLLM ignores what it does not know; a person who reads the wire sees what was not judged."""
    return {
        "action": "NONE",
        "guardreasoner": {"status": verdict.status, "fail_mode": verdict.fail_mode} if verdict is not None else None,
    }
