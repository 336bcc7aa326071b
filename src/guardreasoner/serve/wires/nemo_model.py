"""The guard as NeMo Guardrails' content-safety model: `POST /guard/v1/chat/completions`.

The configured prompt carries the exchange as one JSON object, so that no text in it can forge a turn. The answer uses
the words of NeMo's `nemotron_reasoning_parse_*`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Default
from starlette.requests import Request
from starlette.responses import Response

from guardreasoner.records import unique_keys
from guardreasoner.serve.access.limits import Refused
from guardreasoner.serve.chat import fields as chat_fields
from guardreasoner.serve.chat.conversation import read_messages, spoken, worst
from guardreasoner.serve.decide import REPLY_TASKS, blocks
from guardreasoner.serve.fields import Field, FieldTable, visible
from guardreasoner.serve.service import Service, brief, described, reply
from guardreasoner.types import Exchange, Task, Verdict

FIELDS = FieldTable((Field("messages", "value"), *chat_fields.SETTINGS))
"""Messages are read by the table of chat messages. Nothing of a body is sent on."""


class GuardChat(BaseModel):
    """The body of `/guard/v1/chat/completions`: one prompt, written by the operator's template."""

    model_config = ConfigDict(extra="allow")
    messages: list[dict[str, Any]] = Default(min_length=1)
    model: str = "guardreasoner"
    stream: bool = False


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post(
        "/guard/v1/chat/completions", name="nemo_model", **described(GuardChat, "The guard as a content-safety model.")
    )
    async def guard(request: Request) -> Response:
        body, checked = await service.read(request, "nemo_model", GuardChat, table=FIELDS)
        if body.stream:
            raise Refused(400, "a verdict is not streamed here; set stream to false", "bad_request")
        labels = [Exchange(loose.where, loose.text) for loose in checked.loose]
        asked = [*_exchanges(service, body.messages), *labels]
        verdicts = await service.judge_all(request, asked, service.ask(request, "nemo_model"))
        return reply(_completion(body.model, verdicts))

    return routes


def _exchanges(service: Service, messages: Sequence[Mapping[str, Any]]) -> list[Exchange]:
    """What a prompt of ours carries, and whatever stands before it."""
    trusted = service.policy.rules("nemo_model").trusted_roles
    service.let_pass("nemo_model", read_messages(list(messages), trusted).unread)
    before = read_messages(list(messages[:-1]), trusted)
    found = (*before.alone, *before.turns)
    return [_carried(messages[-1]), *(Exchange(t.where, t.prompt, t.response) for t in found if t.prompt or t.response)]


def _carried(message: Mapping[str, Any]) -> Exchange:
    """The exchange in a prompt of ours: `{"prompt": ..., "response": ...}`; any other text is judged as a request."""
    content = "\n".join(spoken(message))
    if not content.strip():
        raise Refused(400, "the last message holds no text", "empty")
    try:
        value = json.loads(content, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not set(value) <= {"prompt", "response"} or not value:
        return Exchange("guard", content)
    prompt, response = value.get("prompt"), value.get("response")
    if not isinstance(prompt, str | None) or not isinstance(response, str | None):
        return Exchange("guard", content)
    return Exchange("guard", prompt or "", response)


def _completion(model: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    verdict, usage = worst(verdicts), sum((v.usage for v in verdicts[1:]), verdicts[0].usage)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "guardreasoner" if any(map(blocks, verdicts)) else visible(model),
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
    asked: tuple[tuple[Task, ...], ...] = ((Task.prompt_harm,), REPLY_TASKS)
    request, answer = ("harmful" if any(blocks(v, tasks) for v in verdicts) else "unharmful" for tasks in asked)
    return f"Prompt harm: {request}\nResponse Harm: {answer}"
