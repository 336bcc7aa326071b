"""LiteLLM's generic guardrail API: `POST /beta/litellm_basic_guardrail_api`.

A request arrives with its messages, a reply with texts only. The end of the request is therefore remembered by
`litellm_call_id` for a short while, and the two are judged together.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from guardreasoner.serve.access.limits import read_json, shaped
from guardreasoner.serve.chat.conversation import Memory
from guardreasoner.serve.core.budget import RecentEntries
from guardreasoner.serve.litellm_guardrail import FIELDS, Gateway, GuardrailRequest, RememberedCall
from guardreasoner.serve.service import Service, described, reply
from guardreasoner.types import Exchange, Mode, Verdict

CALLS, CALL_TTL_S = 10_000, 600.0
TURNS, TURN_TTL_S = 50_000, 3600.0


class Params(BaseModel):
    """Ours, in `additional_provider_specific_params`; anything else there is not for us."""

    mode: Mode | None = None


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()
    calls: RecentEntries[RememberedCall] = RecentEntries(CALLS, CALL_TTL_S)
    turns: RecentEntries[bool] = RecentEntries(TURNS, TURN_TTL_S)
    unread = service.metrics.unjudged.labels("litellm", "open", "unreadable")

    @routes.post(
        "/beta/litellm_basic_guardrail_api",
        name="litellm",
        **described(GuardrailRequest, "LiteLLM generic guardrail API."),
    )
    async def litellm(request: Request) -> Response:
        given = await read_json(request, service.policy.limits)
        checked = FIELDS.read(given)
        body = shaped(given, GuardrailRequest)
        params = shaped(body.additional_provider_specific_params or {}, Params)
        ask = service.ask(request, "litellm", params.mode)

        async def judge(exchanges: Sequence[Exchange]) -> Sequence[Verdict]:
            return await service.judge_all(request, exchanges, ask)

        lone = not service.core.worker.guard.judges_parts
        gateway = Gateway(service.policy.rules("litellm"), Memory(ask.key, turns), judge, unread.inc, lone)
        place = (ask.key, body.litellm_call_id)
        if body.input_type == "response":
            return reply(await gateway.response(body, calls.get(place), checked.refused))
        answer, call = await gateway.request(body, checked.refused)
        if call is not None and body.litellm_call_id:
            calls.put(place, call)
        return reply(answer)

    return routes
