"""NeMo Guardrails' check-only route, `POST /v1/checks`: messages in, `passed` or `blocked` out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    worst,
)
from guardreasoner.serve.decide import REPLY_TASKS, blocks
from guardreasoner.serve.fields import CheckedBody, Field, FieldTable, visible
from guardreasoner.serve.policy import Rules
from guardreasoner.serve.service import Service, brief, described, reply
from guardreasoner.types import SETTLED, Exchange, Task

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


FIELDS = FieldTable(
    (
        Field("messages", "value"),
        *chat_fields.SETTINGS,
        Field("guardrails.rail_types[]", "=input|output"),
        *(Field(f"guardrails.{name}", "note") for name in ("config_id", "config_ids", "config", "thread_id", "context",
                                                           "options", "state", "llm_params", "llm_output")),
    )
)  # fmt: skip
"""Messages are read by the table of chat messages. Nothing of a body is sent on."""


class CheckBody(BaseModel):
    """The body of `/v1/checks`: an OpenAI chat request with `guardrails`."""

    model_config = ConfigDict(extra="allow")
    messages: list[dict[str, Any]] = Default(min_length=1)
    guardrails: RailOptions = Default(default_factory=RailOptions)


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/v1/checks", name="nemo", **described(CheckBody, "NeMo Guardrails check-only route."))
    async def checks(request: Request) -> Response:
        body, checked = await service.read(request, "nemo", CheckBody, table=FIELDS)
        return reply(await _check(service, request, body, checked))

    return routes


async def _check(service: Service, request: Request, body: CheckBody, checked: CheckedBody) -> dict[str, Any]:
    rules = service.policy.rules("nemo")
    talk = read_messages(body.messages, rules.trusted_roles)
    service.let_pass("nemo", talk.unread)
    roles = {m.get("role") for m in body.messages}
    rails = body.guardrails.rail_types or [rail for rail, made in RAIL_ROLES.items() if made(roles)]
    talk = replace(talk, alone=(*talk.alone, *map(round_of, checked.loose)))
    asked = _pieces(talk, rules, rails, lone=not service.core.worker.guard.judges_parts)
    turn = talk.turns[-1] if talk.turns else Round("", None, ())
    content = visible(turn.response if "output" in rails and turn.response is not None else turn.prompt)
    if not asked:
        return {"status": "passed", "content": content, "guardreasoner": None}
    verdicts = await service.judge_all(request, asked, service.ask(request, "nemo"))
    stops = [v for v in verdicts if v.status not in SETTLED and blocks(v)]
    stops += [v for v in verdicts if any(blocks(v, RAIL_TASKS[rail]) for rail in rails)]
    if not stops:
        return {"status": "passed", "content": content, "guardreasoner": brief(worst(verdicts))}
    verdict = worst(stops)
    rail = next((r for r in rails if blocks(verdict, RAIL_TASKS[r])), rails[0])
    said = rules.answer(verdict)
    return {"status": "blocked", "content": said, "rail": RAIL_NAMES[rail], "guardreasoner": brief(verdict)}


def _pieces(talk: Conversation, rules: Rules, rails: Sequence[Rail], *, lone: bool) -> list[Exchange]:
    """What the rails look at: instructions, the last turn, whole and by its parts, and what was asked before it.

    An earlier turn that our own sentence answers is not asked about again: it would block the conversation for ever.
    """
    asked = [Exchange(t.where, t.prompt) for t in talk.alone] if "input" in rails else []
    if not talk.turns:
        return asked
    for earlier in talk.turns[:-1] if "input" in rails else ():
        if earlier.prompt and earlier.response not in (rules.message, rules.support):
            only = replace(earlier, response=None, parts=tuple(p for p in earlier.parts if p.side == "in"))
            whole = Exchange(earlier.where or "an earlier turn", earlier.prompt)
            asked += [exchange for exchange, _ in pieces_of(only, whole, lone=lone)]
    turn, whole = talk.turns[-1], exchange_of(talk, len(talk.turns) - 1, rules)
    sides = {side for rail, side in (("input", "in"), ("output", "out")) if rail in rails}
    if "output" not in rails and whole.prompt:
        whole = replace(whole, response=None)
    if not (whole.prompt or whole.response):
        return asked
    turn = replace(turn, parts=tuple(p for p in turn.parts if p.side in sides))
    return [*asked, *(exchange for exchange, _ in pieces_of(turn, whole, lone=lone))]
