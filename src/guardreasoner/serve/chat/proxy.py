"""OpenAI's `POST /v1/chat/completions` in front of one upstream.

The request is judged before it is forwarded, the reply afterwards or while it streams. Nothing else is forwarded, and
what is forwarded is built from what was judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from dataclasses import replace
from typing import Any

import httpx
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from guardreasoner.serve.access.connection import until_gone
from guardreasoner.serve.access.limits import Refused, header, read_json
from guardreasoner.serve.chat.call import RETRYABLE, Body, ChatCall
from guardreasoner.serve.chat.conversation import JudgedConversation, Memory, examine, read_messages, round_of
from guardreasoner.serve.chat.fields import REQUEST
from guardreasoner.serve.chat.relay import data, relay
from guardreasoner.serve.chat.reply import UpstreamReply, read_reply, said
from guardreasoner.serve.core.budget import RecentEntries
from guardreasoner.serve.decide import REPLY_TASKS, blocks
from guardreasoner.serve.fields import coded
from guardreasoner.serve.service import Service, brief, reply, unjudged

TURNS, TURN_TTL_S = 50_000, 3600.0
REPLY_BYTES_PER_CHARACTER = 16
"""JSON of a reply is at most this much larger than its text; beyond it the upstream is misbehaving."""
HEADER = "x-guardreasoner"
NO_UPSTREAM = (
    "this server has no model to chat with: start it with `guardreasoner serve --upstream URL` (the base URL of an "
    "OpenAI-compatible server, up to and including /v1)"
)


def router(service: Service) -> APIRouter:
    """The route; where no upstream is configured it says how to have one."""
    routes = APIRouter()
    turns: RecentEntries[bool] = RecentEntries(TURNS, TURN_TTL_S)

    @routes.post("/v1/chat/completions", name="proxy", summary="OpenAI chat completions, judged on both sides.")
    async def chat(request: Request) -> Response:
        if service.policy.proxy.upstream is None:
            raise Refused(404, NO_UPSTREAM, "no_upstream")
        body = await read_json(request, service.policy.limits)
        call = _call(service, request, body, turns)
        return await until_gone(request, _streamed(call) if call.streams else _whole(call))

    return routes


def _call(service: Service, request: Request, body: Any, turns: RecentEntries[bool]) -> ChatCall:
    rules = service.policy.rules("proxy")
    if not isinstance(body, dict):
        raise Refused(400, "the body must be an object", "bad_request")
    if not isinstance(body.get("messages"), list):
        raise Refused(400, "messages is missing, or no list of messages", "bad_request")
    talk = read_messages(body.get("messages"), rules.trusted_roles)
    settings = REQUEST.read({k: v for k, v in body.items() if k != "messages"})
    talk = replace(talk, alone=(*talk.alone, *map(round_of, settings.loose)))
    unread = [*talk.unread, *settings.refused]
    service.let_pass("proxy", unread)
    count = 1 if body.get("n") is None else body["n"]
    if type(count) is not int or not 1 <= count <= service.policy.limits.items:
        raise Refused(400, f"n must be a whole number from 1 to {service.policy.limits.items}", "bad_request")
    ask, authorization = service.ask(request, "proxy"), _authorization(service, request)
    return ChatCall(service, rules, ask, settings.kept, talk, Memory(ask.key, turns), len(unread), authorization)


def _authorization(service: Service, request: Request) -> str | None:
    """The upstream's key from the environment; where callers need none of ours, theirs is the upstream's."""
    if service.upstream_key:
        return f"Bearer {service.upstream_key}"
    return None if service.keyed else header(request, b"authorization")


async def _examined(call: ChatCall, upstream: asyncio.Task[httpx.Response] | None) -> JudgedConversation:
    """The conversation's verdict; an upstream that was asked meanwhile is dropped when it must stop."""
    try:
        found = await examine(call.talk, call.rules, call.memory, call.judge, lone=call.lone)
        if found.verdict is not None and found.blocked and found.verdict.status in RETRYABLE:
            raise unjudged(found.verdict)
    except BaseException:
        await _drop(upstream)
        raise
    if found.blocked or (found.cut and upstream is not None):
        await _drop(upstream)
    return found


async def _start(call: ChatCall) -> tuple[JudgedConversation, httpx.Response | None]:
    """Request verdict and upstream's answer, one after the other or side by side; no answer where it is blocked."""
    early = asyncio.create_task(call.open()) if call.service.policy.proxy.parallel else None
    found = await _examined(call, early)
    if found.blocked:
        return found, None
    if early is not None and not found.cut:
        return found, await _until_cancelled(early)
    return found, await call.open(found.cut)


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


async def _whole(call: ChatCall) -> Response:
    found, answer = await _start(call)
    if answer is None:
        return _blocked(call, found)
    heard = await _read(call, answer)
    content = {k: v for k, v in (await call.judge_labels(heard.body)).items() if v is not None}
    texts = ["\n".join(said(choice["message"]).values()) for choice in content["choices"]]
    verdicts = await asyncio.gather(*(call.judge_reply(text, found) for text in texts if text))
    told = iter(verdicts)
    for choice, text in zip(content["choices"], texts, strict=True):
        verdict = next(told) if text else None
        if verdict is None:
            continue
        if blocks(verdict, REPLY_TASKS):
            if verdict.status in RETRYABLE:
                raise unjudged(verdict)
            choice["message"] = {"role": "assistant", "content": call.rules.answer(verdict)}
            choice["finish_reason"] = "content_filter"
        else:
            call.remember(text, verdict)
    content["guardreasoner"] = call.report(found, verdicts, heard.dropped)
    return reply(content, headers={HEADER: call.word(found, verdicts)})


async def _read(call: ChatCall, answer: httpx.Response) -> UpstreamReply:
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
    return read_reply(value)


async def _streamed(call: ChatCall) -> Response:
    found, answer = await _start(call)
    if answer is None:
        return _blocked(call, found)
    headers = {HEADER: call.word(found, ())}
    return StreamingResponse(relay(call, found, answer), media_type="text/event-stream", headers=headers)


def _blocked(call: ChatCall, found: JudgedConversation) -> Response:
    """What a blocked request gets: a reply that says so, or an error, as the policy wants."""
    verdict = found.verdict
    assert verdict is not None
    supports = verdict.notes.get("action") == "support"
    word, finish = ("supported", "stop") if supports else ("blocked", "content_filter")
    if call.service.policy.proxy.on_block == "error" and not supports:
        error = Refused(400, call.rules.message, "content_filter").body()
        error["error"]["guardreasoner"] = brief(verdict)
        return reply(error, 400, {HEADER: word})
    made: Body = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": _model(call),
        "guardreasoner": call.report(found, ()),
    }
    words = {"role": "assistant", "content": call.rules.answer(verdict)}
    if not call.streams:
        choice = {"index": 0, "message": words, "finish_reason": finish}
        return reply({**made, "object": "chat.completion", "choices": [choice]}, headers={HEADER: word})
    made["object"] = "chat.completion.chunk"
    start = {"index": 0, "delta": words, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": finish}
    text = "".join(data({**made, "choices": [c]}) for c in (start, end)) + "data: [DONE]\n\n"
    return Response(text, headers={HEADER: word}, media_type="text/event-stream")


def _model(call: ChatCall) -> str:
    """The name of the model that was asked, where it may be said."""
    name = str(call.body.get("model") or "")
    return name if coded(name) or call.memory.recall(name, None) is False else ""
