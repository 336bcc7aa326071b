"""NeMo Guardrails, on both sides.

`POST /v1/checks` is its check-only route: messages in, `passed` or `blocked` out. `POST /guard/v1/chat/completions`
lets a NeMo server use our guard as its content-safety model: the configured prompt carries the exchange as one JSON
object, so that no text in it can forge a turn, and the answer is in the words of NeMo's `nemotron_reasoning_parse_*`.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from guardreasoner.serve.chat.conversation import exchange_of, read_messages
from guardreasoner.serve.door.limits import Refused, read
from guardreasoner.serve.policy import REPLY_TASKS, blocks
from guardreasoner.serve.service import Service, brief, described, reply
from guardreasoner.types import Exchange, Task, Verdict

Rail = Literal["input", "output"]
RAIL_NAMES: dict[Rail, str] = {"input": "guardreasoner check input", "output": "guardreasoner check output"}

RAIL_ROLES: dict[Rail, str] = {"input": "user", "output": "assistant"}
"""Which messages make which rails run where the caller does not say, as NeMo does it."""
RAIL_TASKS: dict[Rail, tuple[Task, ...]] = {"input": (Task.prompt_harm,), "output": REPLY_TASKS}


class RailOptions(BaseModel):
    """NeMo's `guardrails` object; only `rail_types` decides anything here."""

    model_config = ConfigDict(extra="allow")
    rail_types: list[Rail] | None = None


class Check(BaseModel):
    """The body of `/v1/checks`: an OpenAI chat request with `guardrails`."""

    model_config = ConfigDict(extra="allow")
    messages: list[dict[str, Any]] = Field(min_length=1)
    guardrails: RailOptions = Field(default_factory=RailOptions)


class GuardChat(BaseModel):
    """The body of `/guard/v1/chat/completions`: one prompt, written by the operator's template."""

    model_config = ConfigDict(extra="allow")
    messages: list[dict[str, Any]] = Field(min_length=1)
    model: str = "guardreasoner"
    stream: bool = False


def router(service: Service) -> APIRouter:
    """Both routes."""
    routes = APIRouter()

    @routes.post("/v1/checks", name="nemo", **described(Check, "NeMo Guardrails check-only route."))
    async def checks(request: Request) -> Response:
        body = await read(request, Check, service.policy.limits)
        return reply(await _check(service, request, body))

    @routes.post(
        "/guard/v1/chat/completions", name="guard", **described(GuardChat, "The guard as a content-safety model.")
    )
    async def guard(request: Request) -> Response:
        body = await read(request, GuardChat, service.policy.limits)
        if body.stream:
            raise Refused(400, "a verdict is not streamed here; set stream to false", "bad_request")
        exchange = _carried(body.messages[-1].get("content"))
        verdict = (await service.judge(request, [exchange], service.ask(request, "guard")))[0]
        return reply(_completion(body.model, verdict))

    return routes


async def _check(service: Service, request: Request, body: Check) -> dict[str, Any]:
    rules = service.policy.rules("nemo")
    talk = read_messages(body.messages, rules.trusted_roles)
    if talk.unread or not talk.turns:
        if rules.fail_mode == "closed":
            raise Refused(400, f"{(*talk.unread, 'messages')[0]} cannot be judged", "unjudgeable")
        service.metrics.unjudged.labels("nemo", "open", "unreadable").inc(len(talk.unread))
    if not talk.turns:
        return {"status": "passed", "content": "", "guardreasoner": None}
    turn = talk.turns[-1]
    roles = {m.get("role") for m in body.messages}
    rails = body.guardrails.rail_types or [rail for rail, role in RAIL_ROLES.items() if role in roles]
    exchange = exchange_of(talk, len(talk.turns) - 1, rules)
    if "output" not in rails and turn.prompt:
        exchange = Exchange(exchange.id, exchange.prompt, None, exchange.context)
    content = turn.response if "output" in rails and turn.response is not None else turn.prompt
    if not (exchange.prompt or exchange.response):
        return {"status": "passed", "content": content, "guardreasoner": None}
    verdict = (await service.judge(request, [exchange], service.ask(request, "nemo")))[0]
    stopped = next((rail for rail in rails if blocks(verdict, RAIL_TASKS[rail])), None)
    if stopped is None:
        return {"status": "passed", "content": content, "guardreasoner": brief(verdict)}
    return {"status": "blocked", "content": rules.message, "rail": RAIL_NAMES[stopped], "guardreasoner": brief(verdict)}


def _carried(content: Any) -> Exchange:
    """The exchange in a prompt of ours: `{"prompt": ..., "response": ...}`; any other text is judged as a request.

    Raises:
        Refused: there is no text.
    """
    if not isinstance(content, str) or not content.strip():
        raise Refused(400, "the last message holds no text", "empty")
    try:
        value = json.loads(content, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not set(value) <= {"prompt", "response"} or not value:
        return Exchange("guard", content)
    prompt, response = value.get("prompt"), value.get("response")
    if not isinstance(prompt, str | None) or not isinstance(response, str | None):
        return Exchange("guard", content)
    return Exchange("guard", prompt or "", response)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({k for k, _ in pairs}) < len(pairs):
        raise ValueError("a key that stands twice could hide what the other one says")
    return dict(pairs)


def _completion(model: str, verdict: Verdict) -> dict[str, Any]:
    usage = verdict.usage
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": _lines(verdict)}}
        ],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
        "guardreasoner": brief(verdict),
    }


def _lines(verdict: Verdict) -> str:
    """NeMo's words for what policy decided: whatever must be stopped, unjudged under `closed` too, is said as harm."""
    request, answer = ("harmful" if blocks(verdict, RAIL_TASKS[rail]) else "unharmful" for rail in RAIL_TASKS)
    return f"Prompt harm: {request}\nResponse Harm: {answer}"
