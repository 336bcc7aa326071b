"""NeMo Guardrails, on both sides.

`POST /v1/checks` is its check-only route: messages in, `passed` or `blocked` out. `POST /guard/v1/chat/completions`
lets a NeMo server use our guard as its content-safety model: the configured prompt carries the exchange as one JSON
object, so that no text in it can forge a turn, and the answer is in the words of NeMo's `nemotron_reasoning_parse_*`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Default
from starlette.requests import Request
from starlette.responses import Response

from guardreasoner.serve.chat import fields as chat_fields
from guardreasoner.serve.chat.conversation import (
    Conversation,
    Round,
    exchange_of,
    pieces_of,
    read_messages,
    round_of,
    spoken,
    worst,
)
from guardreasoner.serve.door.limits import Refused
from guardreasoner.serve.fields import Checked, Field, FieldTable
from guardreasoner.serve.policy import REPLY_TASKS, Rules, blocks
from guardreasoner.serve.service import Service, brief, described, reply
from guardreasoner.types import Exchange, Task, Verdict

Rail = Literal["input", "output"]
RAIL_NAMES: dict[Rail, str] = {"input": "guardreasoner check input", "output": "guardreasoner check output"}

RAIL_ROLES: dict[Rail, Callable[[set[Any]], bool]] = {
    "input": lambda roles: bool(roles - {"assistant"}),
    "output": lambda roles: "assistant" in roles,
}
"""Which roles make which rails run where the caller does not say."""
RAIL_TASKS: dict[Rail, tuple[Task, ...]] = {"input": (Task.prompt_harm,), "output": REPLY_TASKS}


class RailOptions(BaseModel):
    """NeMo's `guardrails` object; only `rail_types` decides anything here."""

    model_config = ConfigDict(extra="allow")
    rail_types: list[Rail] | None = None


CHECK_FIELDS = FieldTable(
    (
        Field("messages", "value"),
        *chat_fields.SETTINGS,
        Field("guardrails.rail_types[]", "=input|output"),
        *(Field(f"guardrails.{name}", "note") for name in ("config_id", "config_ids", "config", "thread_id", "context",
                                                           "options", "state", "llm_params", "llm_output")),
    )
)  # fmt: skip
GUARD_FIELDS = FieldTable((Field("messages", "value"), *chat_fields.SETTINGS))
"""Messages are read by the table of chat messages. Nothing of a body is sent on."""


class CheckBody(BaseModel):
    """The body of `/v1/checks`: an OpenAI chat request with `guardrails`."""

    model_config = ConfigDict(extra="allow")
    messages: list[dict[str, Any]] = Default(min_length=1)
    guardrails: RailOptions = Default(default_factory=RailOptions)


class GuardChat(BaseModel):
    """The body of `/guard/v1/chat/completions`: one prompt, written by the operator's template."""

    model_config = ConfigDict(extra="allow")
    messages: list[dict[str, Any]] = Default(min_length=1)
    model: str = "guardreasoner"
    stream: bool = False


def router(service: Service) -> APIRouter:
    """Both routes."""
    routes = APIRouter()

    @routes.post("/v1/checks", name="nemo", **described(CheckBody, "NeMo Guardrails check-only route."))
    async def checks(request: Request) -> Response:
        body, checked = await service.read(request, "nemo", CheckBody, table=CHECK_FIELDS)
        return reply(await _check(service, request, body, checked))

    @routes.post(
        "/guard/v1/chat/completions", name="guard", **described(GuardChat, "The guard as a content-safety model.")
    )
    async def guard(request: Request) -> Response:
        body, _ = await service.read(request, "guard", GuardChat, table=GUARD_FIELDS)
        if body.stream:
            raise Refused(400, "a verdict is not streamed here; set stream to false", "bad_request")
        asked = _exchanges(body.messages, service.policy.rules("guard"))
        verdicts = await service.judge_all(request, asked, service.ask(request, "guard"))
        return reply(_completion(body.model, verdicts))

    return routes


async def _check(service: Service, request: Request, body: CheckBody, checked: Checked) -> dict[str, Any]:
    rules = service.policy.rules("nemo")
    talk = read_messages(body.messages, rules.trusted_roles)
    unread = [*checked.refused, *talk.unread]
    if unread and rules.fail_mode == "closed" and not rules.shadow:
        raise Refused(400, f"{unread[0]}, and fail mode closed lets nothing unjudged pass", "unjudgeable")
    if unread:
        service.metrics.unjudged.labels("nemo", "open", "unreadable").inc(len(unread))
    roles = {m.get("role") for m in body.messages}
    rails = body.guardrails.rail_types or [rail for rail, made in RAIL_ROLES.items() if made(roles)]
    talk = replace(talk, alone=(*talk.alone, *map(round_of, checked.loose)))
    asked = _pieces(talk, rules, rails)
    turn = talk.turns[-1] if talk.turns else Round("", None, ())
    content = turn.response if "output" in rails and turn.response is not None else turn.prompt
    if not asked:
        return {"status": "passed", "content": content, "guardreasoner": None}
    verdicts = await service.judge_all(request, asked, service.ask(request, "nemo"))
    stops = [v for v in verdicts if v.status != "ok" and blocks(v)]
    stops += [v for v in verdicts if any(blocks(v, RAIL_TASKS[rail]) for rail in rails)]
    if not stops:
        return {"status": "passed", "content": content, "guardreasoner": brief(worst(verdicts))}
    verdict = worst(stops)
    rail = next((r for r in rails if blocks(verdict, RAIL_TASKS[r])), rails[0])
    said = rules.answer(verdict)
    return {"status": "blocked", "content": said, "rail": RAIL_NAMES[rail], "guardreasoner": brief(verdict)}


def _pieces(talk: Conversation, rules: Rules, rails: Sequence[Rail]) -> list[Exchange]:
    """What the rails look at: instructions and the last turn, whole and by its parts."""
    asked = [Exchange(t.where, t.prompt) for t in talk.alone] if "input" in rails else []
    if not talk.turns:
        return asked
    turn, whole = talk.turns[-1], exchange_of(talk, len(talk.turns) - 1, rules)
    sides = {side for rail, side in (("input", "in"), ("output", "out")) if rail in rails}
    if "output" not in rails and whole.prompt:
        whole = replace(whole, response=None)
    if not (whole.prompt or whole.response):
        return asked
    turn = replace(turn, parts=tuple(p for p in turn.parts if p.side in sides))
    return [*asked, *(exchange for exchange, _ in pieces_of(turn, whole))]


def _exchanges(messages: Sequence[Mapping[str, Any]], rules: Rules) -> list[Exchange]:
    """What a prompt of ours carries, and whatever stands before it.

    Raises:
        Refused: there is no text, or something that cannot be judged.
    """
    talk = read_messages(list(messages), rules.trusted_roles)
    if talk.unread and rules.fail_mode == "closed" and not rules.shadow:
        raise Refused(400, f"{talk.unread[0]}, and fail mode closed lets nothing unjudged pass", "unjudgeable")
    before = read_messages(list(messages[:-1]), rules.trusted_roles)
    found = (*before.alone, *before.turns)
    return [_carried(messages[-1]), *(Exchange(t.where, t.prompt, t.response) for t in found if t.prompt or t.response)]


def _carried(message: Mapping[str, Any]) -> Exchange:
    """The exchange in a prompt of ours: `{"prompt": ..., "response": ...}`; any other text is judged as a request.

    Raises:
        Refused: there is no text.
    """
    content = "\n".join(spoken(message))
    if not content.strip():
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


def _completion(model: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    verdict, usage = worst(verdicts), sum((v.usage for v in verdicts[1:]), verdicts[0].usage)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": _lines(verdicts)}}
        ],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
        "guardreasoner": brief(verdict),
    }


def _lines(verdicts: Sequence[Verdict]) -> str:
    """NeMo's words for what policy decided: whatever must be stopped, unjudged under `closed` too, is said as harm."""
    request, answer = (
        "harmful" if any(blocks(v, RAIL_TASKS[rail]) for v in verdicts) else "unharmful" for rail in RAIL_TASKS
    )
    return f"Prompt harm: {request}\nResponse Harm: {answer}"
