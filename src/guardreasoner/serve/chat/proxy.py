"""OpenAI's `POST /v1/chat/completions` in front of one upstream: the request is judged before, the reply after or while
it streams. Nothing else is forwarded, and what is forwarded is built from what was judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from guardreasoner.records import dumps
from guardreasoner.serve.chat.conversation import (
    Conversation,
    Examined,
    Memory,
    Turn,
    examine,
    read_messages,
    read_value,
)
from guardreasoner.serve.chat.fields import READ_FIELDS, clean_reply, parse_event, said, unknown_fields
from guardreasoner.serve.chat.stream import Held
from guardreasoner.serve.core.budget import Recent
from guardreasoner.serve.core.judge import Ask
from guardreasoner.serve.door.connection import until_gone
from guardreasoner.serve.door.limits import Refused, header, read_json
from guardreasoner.serve.policy import REPLY_TASKS, Rules, blocks
from guardreasoner.serve.service import Service, brief, reply
from guardreasoner.types import Exchange, Verdict

TURNS, TURN_TTL_S = 50_000, 3600.0
RETRYABLE = ("timeout", "unavailable", "overloaded")
REPLY_BYTES_PER_CHARACTER = 16
"""JSON of a reply is at most this much larger than its text; beyond it the upstream is misbehaving."""
HEADER = "x-guardreasoner"
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way."""

    service: Service
    rules: Rules
    ask: Ask
    body: Body
    talk: Conversation
    memory: Memory
    unread: int
    """Things that could not be judged and pass all the same (fail mode `open`)."""
    authorization: str | None

    async def judge(self, exchanges: Sequence[Exchange]) -> Sequence[Verdict]:
        """Decided verdicts."""
        return await self.service.core.judge(exchanges, self.ask)

    async def judge_reply(self, exchanges: Sequence[Exchange]) -> Sequence[Verdict]:
        """Decided verdicts on what the upstream said."""
        return await self.service.core.judge(exchanges, self.later)

    @property
    def later(self) -> Ask:
        """The time for judging a reply begins when it is there."""
        return replace(self.ask, arrived=None)

    def exchange(self, text: str, found: Examined) -> Exchange:
        """A reply, or a window of one, as an exchange."""
        turn = self.talk.turns[-1] if self.talk.turns else Turn("", None, ())
        return Exchange("reply", turn.prompt, (turn.response or "") + text, found.context)


def router(service: Service) -> APIRouter:
    """The route; none where no upstream is configured."""
    routes = APIRouter()
    turns: Recent[bool] = Recent(TURNS, TURN_TTL_S)
    if service.policy.proxy.upstream is None:
        return routes

    @routes.post("/v1/chat/completions", name="proxy", summary="OpenAI chat completions, judged on both sides.")
    async def chat(request: Request) -> Response:
        body = await read_json(request, service.policy.limits)
        call = _call(service, request, body, turns)
        if call.body.get("stream"):
            return await until_gone(request, _streamed(call))
        return await until_gone(request, _whole(call))

    return routes


def _call(service: Service, request: Request, body: Any, turns: Recent[bool]) -> Call:
    rules = service.policy.rules("proxy")
    if not isinstance(body, dict):
        raise Refused(400, "the body must be an object", "bad_request")
    talk = read_messages(body.get("messages"), rules.trusted_roles)
    extra = [Turn(read_value(body[name]), None, ()) for name in READ_FIELDS if body.get(name)]
    talk = replace(talk, alone=(*talk.alone, *extra))
    unread = unknown_fields(body) + len(talk.unread)
    if unread and rules.fail_mode == "closed" and not rules.shadow:
        what = talk.unread[0] if talk.unread else "a field of the request"
        raise Refused(400, f"{what} cannot be judged, and fail mode closed lets nothing unjudged pass", "unjudgeable")
    if unread:
        service.metrics.unjudged.labels("proxy", "open", "unreadable").inc(unread)
    count = body.get("n") or 1
    if not isinstance(count, int) or not 1 <= count <= service.policy.limits.items:
        raise Refused(400, f"n must be a whole number from 1 to {service.policy.limits.items}", "bad_request")
    ask = service.ask(request, "proxy")
    return Call(service, rules, ask, body, talk, Memory(ask.key, turns), unread, _authorization(service, request))


def _authorization(service: Service, request: Request) -> str | None:
    """The upstream's key from the environment; where callers need none of ours, theirs is the upstream's."""
    if service.upstream_key:
        return f"Bearer {service.upstream_key}"
    return None if service.keyed else header(request, b"authorization")


async def _examined(call: Call, upstream: asyncio.Task[httpx.Response] | None) -> Examined:
    """The conversation's verdict; an upstream that was asked meanwhile is dropped when it must stop."""
    try:
        found = await examine(call.talk, call.rules, call.memory, call.judge)
        if found.verdict is not None and found.blocked and found.verdict.status in RETRYABLE:
            raise _unjudged(found.verdict)
    except BaseException:
        await _drop(upstream)
        raise
    if found.blocked or (found.cut and upstream is not None):
        await _drop(upstream)
    return found


async def _open(call: Call, cut: frozenset[int] = frozenset()) -> httpx.Response:
    """The upstream's answer, its head only.

    Raises:
        Refused: it cannot be reached, or answers with an error.
    """
    client, url = call.service.upstream, f"{call.service.policy.proxy.upstream}/chat/completions"
    assert client is not None
    messages = [m for i, m in enumerate(call.body["messages"]) if i not in cut]
    headers = {"content-type": "application/json"}
    if call.authorization:
        headers["authorization"] = call.authorization
    content = dumps({**call.body, "messages": messages}).encode()
    try:
        answer = await client.send(client.build_request("POST", url, content=content, headers=headers), stream=True)
    except httpx.HTTPError as error:
        raise Refused(502, f"the upstream cannot be reached ({type(error).__name__})", "upstream_unreachable") from None
    if answer.status_code != 200:
        await answer.aclose()
        status = answer.status_code if 400 <= answer.status_code < 500 else 502
        again = {"retry-after": answer.headers["retry-after"]} if "retry-after" in answer.headers else {}
        raise Refused(status, f"the upstream answered {answer.status_code}", "upstream_error", again)
    return answer


async def _start(call: Call) -> tuple[Examined, httpx.Response | None]:
    """Request verdict and upstream's answer, one after the other or side by side; no answer where it is blocked."""
    early = asyncio.create_task(_open(call)) if call.service.policy.proxy.parallel else None
    found = await _examined(call, early)
    if found.blocked:
        return found, None
    if early is not None and not found.cut:
        return found, await _until_cancelled(early)
    return found, await _open(call, found.cut)


async def _until_cancelled(task: asyncio.Task[httpx.Response]) -> httpx.Response:
    try:
        return await task
    except asyncio.CancelledError:
        await _drop(task)
        raise


async def _drop(upstream: asyncio.Task[httpx.Response] | None) -> None:
    if upstream is None:
        return
    upstream.cancel()
    with contextlib.suppress(asyncio.CancelledError, Refused):
        await (await upstream).aclose()


async def _whole(call: Call) -> Response:
    found, answer = await _start(call)
    if answer is None:
        return _blocked(call, found)
    content = await _read(call, answer)
    replies: list[tuple[Body, str]] = [(c, said(c.get("message") or {})) for c in content["choices"]]
    spoken = [call.exchange(text, found) for _, text in replies if text]
    verdicts = iter(await call.judge_reply(spoken) if spoken else ())
    shown: list[Verdict] = []
    for choice, text in replies:
        verdict = next(verdicts) if text else None
        if verdict is None:
            continue
        shown.append(verdict)
        if blocks(verdict, REPLY_TASKS):
            if verdict.status in RETRYABLE:
                raise _unjudged(verdict)
            choice["message"] = {"role": "assistant", "content": call.rules.message}
            choice["finish_reason"] = "content_filter"
        else:
            _remember(call, text, verdict)
    content["guardreasoner"] = _report(call, found, shown)
    return reply(content, headers={HEADER: _word(call, found, shown)})


async def _read(call: Call, answer: httpx.Response) -> Body:
    limit = call.service.policy.proxy.reply_characters * REPLY_BYTES_PER_CHARACTER
    parts, size = [], 0
    try:
        async for part in answer.aiter_bytes():
            size += len(part)
            if size > limit:
                raise Refused(502, "the upstream's answer is too large", "upstream_too_large")
            parts.append(part)
        value = json.loads(b"".join(parts))
    except httpx.HTTPError as error:
        raise Refused(502, f"the upstream broke off ({type(error).__name__})", "upstream_died") from None
    except (ValueError, RecursionError):
        raise Refused(502, "the upstream's answer is not JSON", "upstream_bad_json") from None
    finally:
        await answer.aclose()
    if not isinstance(value, dict):
        raise Refused(502, "the upstream's answer is not an object", "upstream_bad_json")
    return clean_reply(value)


async def _streamed(call: Call) -> Response:
    found, answer = await _start(call)
    if answer is None:
        return _blocked(call, found)
    headers = {HEADER: _word(call, found, ())}
    return StreamingResponse(_chunks(call, found, answer), media_type="text/event-stream", headers=headers)


async def _chunks(call: Call, found: Examined, answer: httpx.Response) -> AsyncIterator[str]:
    """The stream as it may be sent: judged pieces, a cut where it must stop, and an error where the upstream dies."""
    settings = call.service.policy.proxy
    held: dict[int, Held] = {}
    lines: asyncio.Queue[str | Exception | None] = asyncio.Queue(maxsize=256)
    reader = asyncio.create_task(_lines(answer, lines))
    envelope: Body = {}
    try:
        ended = False
        while not ended:
            batch = [await lines.get()]
            while not lines.empty():
                batch.append(lines.get_nowait())
            ended = batch[-1] is None
            chunks = [c for c in (parse_event(line) for line in batch if isinstance(line, str)) if c is not None]
            extra = [e for c in chunks for e in _take(clean_reply(c), held, settings, envelope)]
            failure = next((b for b in batch if isinstance(b, Exception)), None)
            if isinstance(failure, EOFError) and held and all(h.finished for h in held.values()):
                failure = None  # complete, only its last line is missing
            for index, choice in sorted(held.items()):
                async for text in _advance(call, found, index, choice, ended and failure is None, envelope):
                    yield text
            for chunk in extra:
                yield _data(chunk)
            if failure is not None:
                yield _data(Refused(502, f"the upstream broke off ({type(failure).__name__})", "upstream_died").body())
                return
            if held and all(h.cut for h in held.values()):
                break
        yield "data: [DONE]\n\n"
    finally:
        reader.cancel()
        await answer.aclose()


async def _lines(answer: httpx.Response, lines: asyncio.Queue[str | Exception | None]) -> None:
    """The upstream's lines, then None, or an error and None."""
    done = False
    try:
        async for line in answer.aiter_lines():
            done = done or line.strip() == "data: [DONE]"
            await lines.put(line)
        if not done:
            await lines.put(EOFError("no end"))
    except Exception as error:
        await lines.put(error)
    await lines.put(None)


def _take(chunk: Body, held: dict[int, Held], settings: Any, envelope: Body) -> list[Body]:
    """Sort a chunk's pieces to their choices; returns what belongs to none (usage at the end)."""
    envelope.update({k: v for k, v in chunk.items() if k not in ("choices", "usage")})
    for choice in chunk["choices"]:
        own = held.setdefault(choice["index"], Held(settings))
        if not own.cut:
            own.add(said(choice.get("delta") or {}), choice, choice["finish_reason"] is not None)
    return [{**envelope, "choices": [], "usage": chunk["usage"]}] if chunk.get("usage") and not chunk["choices"] else []


async def _advance(
    call: Call, found: Examined, index: int, choice: Held, ended: bool, envelope: Body
) -> AsyncIterator[str]:
    if choice.cut:
        return
    finished = ended or choice.finished

    async def look(text: str) -> Verdict:
        return await call.service.core.settle(call.exchange(text, found), call.later)

    choice.cut = len(choice.text) > choice.settings.reply_characters
    while True:
        for piece in choice.release():  # what may go ahead of its verdict goes before the wait for it
            last = {"guardreasoner": _report(call, found, _known(choice))} if piece.get("finish_reason") else {}
            yield _data({**envelope, "choices": [piece], **last})
        if not choice.due(finished):
            break
        await choice.advance(look, lambda v: blocks(v, REPLY_TASKS))
    if choice.cut:
        end = {"index": index, "delta": {}, "finish_reason": "content_filter"}
        yield _data({**envelope, "choices": [end], "guardreasoner": _report(call, found, _known(choice))})
    elif finished and choice.verdict is not None and len(choice.text) <= choice.settings.span:
        _remember(call, choice.text, choice.verdict)


def _known(choice: Held) -> list[Verdict]:
    return [choice.verdict] if choice.verdict is not None else []


def _blocked(call: Call, found: Examined) -> Response:
    """What a blocked request gets: a reply that says so, or an error, as the policy wants."""
    settings, verdict = call.service.policy.proxy, found.verdict
    if settings.on_block == "error":
        error = Refused(400, call.rules.message, "content_filter").body()
        error["error"]["guardreasoner"] = None if verdict is None else brief(verdict)
        return reply(error, 400, {HEADER: "blocked"})
    made: Body = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": str(call.body.get("model") or ""),
        "guardreasoner": _report(call, found, ()),
    }
    if not call.body.get("stream"):
        message = {"role": "assistant", "content": call.rules.message}
        choice = {"index": 0, "message": message, "finish_reason": "content_filter"}
        return reply({**made, "object": "chat.completion", "choices": [choice]}, headers={HEADER: "blocked"})
    made["object"] = "chat.completion.chunk"
    start = {"index": 0, "delta": {"role": "assistant", "content": call.rules.message}, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "content_filter"}
    text = "".join(_data({**made, "choices": [c]}) for c in (start, end)) + "data: [DONE]\n\n"
    return Response(text, headers={HEADER: "blocked"}, media_type="text/event-stream")


def _unjudged(verdict: Verdict) -> Refused:
    message = f"this could not be judged ({verdict.status}), and fail mode closed lets nothing unjudged pass"
    return Refused(503, message, f"unjudged_{verdict.status}", {"retry-after": "1"})


def _remember(call: Call, text: str, verdict: Verdict) -> None:
    turn = call.talk.turns[-1] if call.talk.turns else Turn("", None, ())
    call.memory.keep(turn.prompt, (turn.response or "") + text, verdict)


def _report(call: Call, found: Examined, replies: Sequence[Verdict]) -> Body:
    return {
        "request": None if found.verdict is None else brief(found.verdict),
        "replies": [brief(v) for v in replies],
        "removed_messages": len(found.cut),
        "unread": call.unread,
    }


def _word(call: Call, found: Examined, replies: Sequence[Verdict]) -> str:
    """The verdict in one word, for a header: blocked, unjudged, flagged or passed."""
    verdicts = [*([] if found.verdict is None else [found.verdict]), *replies]
    if any(blocks(v, REPLY_TASKS) for v in replies):
        return "blocked"
    if call.unread or found.passed_unjudged or any(v.fail_mode == "open" for v in verdicts):
        return "unjudged"
    return "flagged" if any(v.flagged for v in verdicts) else "passed"


def _data(value: Mapping[str, Any]) -> str:
    return f"data: {dumps(value)}\n\n"
