"""This project's own API: `POST /v1/judge`, one exchange or many, whole verdicts or a stream of reasoning steps.

{"prompt": "...", "response": "...", "context": [{"role", "content"}], "id": "...", "mode": "auto", "stream": true}
{"exchanges": [{"prompt": "..."}, ...], "mode": "instant"}
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, model_validator
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from guardreasoner.records import dumps
from guardreasoner.serve.access.connection import until_gone
from guardreasoner.serve.access.limits import Refused
from guardreasoner.serve.chat.fields import ROLES
from guardreasoner.serve.core.judge import Caller
from guardreasoner.serve.fields import Field, FieldTable
from guardreasoner.serve.service import Service, described, reply, whole
from guardreasoner.types import Exchange, Message, Mode, Step, Verdict

_EXCHANGE = (("prompt", "text"), ("response", "text"), ("context[].role", ROLES),
             ("context[].content", "text"), ("id", "note"))  # fmt: skip
FIELDS = FieldTable(
    (
        *(Field(f"{place}{name}", kind) for place in ("", "exchanges[].") for name, kind in _EXCHANGE),
        Field("mode", "=instant|short|full|auto"),
        Field("stream", "flag"),
    ),
    lists={"context": 1_000, "exchanges[].context": 1_000},
)
"""The body's fields. Nothing of it is sent on; `id` comes back as `exchange_id`."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class EarlierMessage(_Part):
    """One earlier message."""

    role: Literal["user", "assistant", "system", "developer", "tool", "function"]
    content: str


class JudgeItem(_Part):
    """One exchange to judge."""

    prompt: str = ""
    response: str | None = None
    context: list[EarlierMessage] = []
    id: str | int | float | None = None

    def exchange(self, default_id: str) -> Exchange:
        """This part as an `Exchange`."""
        context = tuple(Message(m.role, m.content) for m in self.context)
        name = default_id if self.id is None or self.id == "" else str(self.id)
        return Exchange(name, self.prompt, self.response, context)


class JudgeRequest(JudgeItem):
    """The body: one exchange, or `exchanges`."""

    exchanges: list[JudgeItem] | None = None
    mode: Mode | None = None
    stream: bool = False

    @model_validator(mode="after")
    def _one_or_many(self) -> JudgeRequest:
        if self.exchanges is not None and (
            self.prompt or self.response is not None or self.context or self.id is not None
        ):
            raise ValueError("exchanges and a single exchange exclude each other")
        if self.exchanges is not None and (self.stream or not self.exchanges):
            raise ValueError("exchanges must not be empty, and are not streamed")
        return self


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/v1/judge", name="judge", **described(JudgeRequest, "Judge one exchange or many."))
    async def judge(request: Request) -> Response:
        body, _ = await service.read(request, "judge", JudgeRequest, table=FIELDS, many="exchanges")
        ask = service.ask(request, "judge", body.mode)
        asked = [body] if body.exchanges is None else body.exchanges
        exchanges = [one.exchange(f"{i}") for i, one in enumerate(asked)]
        if body.stream:
            return await _stream(service, request, exchanges[0], ask)
        verdicts = await service.judge(request, exchanges, ask)
        return reply(whole(verdicts[0]) if body.exchanges is None else {"verdicts": [whole(v) for v in verdicts]})

    return routes


async def _stream(service: Service, request: Request, exchange: Exchange, ask: Caller) -> Response:
    """Server-sent events: `step` for each reasoning step, then one `verdict`.

    The answer begins with the first event, so that a refusal is still an HTTP status.
    """
    events: asyncio.Queue[Step | Sequence[Verdict] | BaseException] = asyncio.Queue()

    async def work() -> None:
        try:
            verdicts = await service.core.judge([exchange], ask, lambda _, step: events.put_nowait(step))
            events.put_nowait(service.loaded(verdicts))
        except Exception as error:
            events.put_nowait(error)

    task = asyncio.create_task(work())
    try:
        first = await until_gone(request, events.get())
    except BaseException:
        task.cancel()
        raise
    if isinstance(first, Refused):
        raise first
    body = _events(events, first, task)
    return StreamingResponse(body, media_type="text/event-stream")


async def _events(events: asyncio.Queue[Any], first: Any, task: asyncio.Task[None]) -> AsyncIterator[str]:
    sent = 0
    event = first
    try:
        while isinstance(event, Step):
            sent += 1
            yield _event("step", event)
            event = await events.get()
        if isinstance(event, BaseException):
            yield _event("error", Refused(500, f"internal error ({type(event).__name__})", "internal").body())
            return
        verdict: Verdict = event[0]
        for step in verdict.steps[sent:]:  # a guard that does not say its steps while it reasons
            yield _event("step", step)
        yield _event("verdict", whole(verdict))
    finally:
        task.cancel()


def _event(kind: str, value: Any) -> str:
    return f"event: {kind}\ndata: {dumps(value)}\n\n"
