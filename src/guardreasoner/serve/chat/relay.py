"""A reply while it is being written: the upstream's events in, judged pieces out.

Anything not understood, and an upstream that dies or reports a failure, ends the stream with an `error` event and
without `[DONE]`; text still held back is dropped.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from guardreasoner.records import dumps
from guardreasoner.serve.access.limits import Refused
from guardreasoner.serve.chat.call import Body, ChatCall
from guardreasoner.serve.chat.conversation import JudgedConversation
from guardreasoner.serve.chat.events import EventReader, EventTooLong, ServerSent
from guardreasoner.serve.chat.reply import LABELS, read_reply, said, unclear
from guardreasoner.serve.chat.stream import HeldReply
from guardreasoner.serve.decide import REPLY_TASKS, blocks
from guardreasoner.types import SETTLED, Verdict

ENVELOPE = ("id", "object", "created", *LABELS)
Queue = asyncio.Queue[ServerSent | Refused | None]


async def relay(call: ChatCall, found: JudgedConversation, answer: httpx.Response) -> AsyncIterator[str]:
    """The stream as it may be sent."""
    events: Queue = asyncio.Queue(maxsize=256)
    reader = asyncio.create_task(_read_events(answer, events))
    state = _Relay(call, found)
    try:
        ended = False
        while not ended:
            batch = [await events.get()]
            while not events.empty():
                batch.append(events.get_nowait())
            ended = batch[-1] is None
            failure: Refused | None = None
            last: list[Body] = []
            for event in batch:
                if failure is None and event is not None:
                    failure = event if isinstance(event, Refused) else await state.take(event, last)
            failure = state.checked(failure, ended)
            async for text in state.advance(ended and failure is None):
                yield text
            for chunk in last:
                yield data(chunk)
            if failure is not None:
                yield data(failure.body())
                return
            if state.held and all(h.cut for h in state.held.values()):
                break
        yield "data: [DONE]\n\n"
    finally:
        reader.cancel()
        await answer.aclose()


async def _read_events(answer: httpx.Response, events: Queue) -> None:
    """The upstream's events up to `[DONE]`, then None; an error in their place where it breaks off."""
    reader, done = EventReader(), False
    try:
        async for part in answer.aiter_bytes():
            for event in reader.feed(part):
                done = done or event.data.strip() == "[DONE]"
                await events.put(event)
            if done:
                break
        for event in () if done else reader.feed(b"", last=True):
            done = done or event.data.strip() == "[DONE]"
            await events.put(event)
        if not done:
            await events.put(Refused(502, "the upstream broke off", "upstream_died"))
    except EventTooLong:
        await events.put(Refused(502, "the upstream sent an event that is too long", "upstream_too_large"))
    except Exception as error:
        await events.put(Refused(502, f"the upstream broke off ({type(error).__name__})", "upstream_died"))
    await events.put(None)


class _Relay:
    """What is known of a stream so far."""

    def __init__(self, call: ChatCall, found: JudgedConversation) -> None:
        self.call, self.found = call, found
        self.held: dict[int, HeldReply] = {}
        self.envelope: Body = {"object": "chat.completion.chunk"}
        self.dropped = 0
        self._labels: tuple[Any, ...] | None = None

    async def take(self, event: ServerSent, last: list[Body]) -> Refused | None:
        """Sort the pieces of an event to their choices; chunks that belong to none (usage at the end) go to `last`."""
        if event.data.strip() in ("", "[DONE]"):
            return None
        try:
            if event.kind == "error":
                raise Refused(502, "the upstream answered with an error", "upstream_error")
            heard = read_reply(_json(event.data), "delta")
        except Refused as error:
            return error
        self.dropped += heard.dropped
        await self._take_envelope({k: v for k, v in heard.body.items() if k in ENVELOPE})
        usage, choices = heard.body.get("usage"), heard.body["choices"]
        for choice in choices:
            own = self.held.setdefault(choice["index"], HeldReply(self.call.service.policy.proxy))
            if len(self.held) > self.call.service.policy.limits.items:
                return unclear("it has too many choices")
            if not own.cut:
                own.add(said(choice["delta"]), (choice, usage), choice["finish_reason"] is not None)
        if usage and not choices:
            last.append({**self.envelope, "choices": [], "usage": usage})
        return None

    async def _take_envelope(self, given: Body) -> None:
        labels = tuple(given.get(name) for name in ("id", *LABELS))
        if self._labels is None or (labels != self._labels and any(labels)):
            self._labels = labels
            given = await self.call.judge_labels(given)
            self.envelope |= {k: v for k, v in given.items() if v is not None}

    def checked(self, failure: Refused | None, ended: bool) -> Refused | None:
        """The failure, unless only the last line is missing; or that of a stream which ended and said nothing."""
        complete = bool(self.held) and all(h.finished for h in self.held.values())
        if failure is not None and failure.code == "upstream_died" and complete:
            failure = None
        if failure is None and ended and not self.held:
            return unclear("it said nothing")
        if failure is None and ended and self.dropped and not any(h.length for h in self.held.values()):
            return unclear("nothing of what it says is in a known field")
        return failure

    async def advance(self, ended: bool) -> AsyncIterator[str]:
        """Judge what is due, and give out what may go."""
        for index, choice in sorted(self.held.items()):
            async for text in self._advance(index, choice, ended or choice.finished):
                yield text

    async def _advance(self, index: int, choice: HeldReply, finished: bool) -> AsyncIterator[str]:
        if choice.cut:
            return

        async def look(text: str) -> Verdict:
            return await self.call.judge_reply(text, self.found)

        choice.cut = choice.length > choice.settings.reply_characters
        while True:
            for piece, usage in choice.release():  # what may go ahead of its verdict goes before the wait for it
                yield self._chunk(piece, choice, usage, last=piece["finish_reason"] is not None)
            if not choice.due(finished):
                break
            await choice.advance(look, lambda v: blocks(v, REPLY_TASKS))
        if choice.cut:
            stopped = choice.verdict
            words = {}
            supports = stopped is not None and stopped.notes.get("action") == "support"
            if stopped is not None and (supports or (stopped.status in SETTLED and not choice.sent)):
                words = {"content": self.call.rules.answer(stopped)}
            yield self._chunk({"index": index, "delta": words, "finish_reason": "content_filter"}, choice, last=True)
        elif finished and choice.verdict is not None and choice.length <= choice.settings.span:
            self.call.remember("\n".join(choice.texts.values()), choice.verdict)

    def _chunk(self, piece: Body, choice: HeldReply, usage: Body | None = None, *, last: bool = False) -> str:
        more: Body = {"usage": usage} if usage else {}
        if last:
            verdicts = [choice.verdict] if choice.verdict is not None else []
            more["guardreasoner"] = self.call.report(self.found, verdicts, self.dropped)
        return data({**self.envelope, "choices": [piece], **more})


def data(value: Mapping[str, Any]) -> str:
    """One event of ours."""
    return f"data: {dumps(value)}\n\n"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise unclear("an event is not JSON") from None
