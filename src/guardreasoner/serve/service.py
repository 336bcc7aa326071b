"""What every wire format is given, and the few things that all of them do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel
from starlette import routing
from starlette.requests import Request
from starlette.responses import Response

from guardreasoner.records import dumps
from guardreasoner.serve.access.connection import until_gone
from guardreasoner.serve.access.limits import Refused, header, read_json, shaped
from guardreasoner.serve.access.prometheus import Metrics
from guardreasoner.serve.core.judge import Caller, Core
from guardreasoner.serve.decide import blocks
from guardreasoner.serve.fields import CheckedBody, FieldTable
from guardreasoner.serve.policy import Policy, Route
from guardreasoner.types import Exchange, Labels, Mode, Usage, Verdict, field_names

M = TypeVar("M", bound=BaseModel)
VERDICT_FIELDS, LABEL_FIELDS, USAGE_FIELDS = field_names(Verdict), field_names(Labels), field_names(Usage)
NOT_BRIEF = frozenset(("exchange_id", "steps", "text"))
DEADLINE_HEADER = b"x-deadline-ms"
SHORTEST_DEADLINE_S = 0.05
"""The shortest deadline a caller may ask for: below it nothing could be judged."""


@dataclass(frozen=True, slots=True)
class Service:
    """One server's parts."""

    core: Core
    policy: Policy
    metrics: Metrics
    upstream: httpx.AsyncClient | None = None
    """The proxy's client, where there is an upstream."""
    upstream_key: str | None = None
    keyed: bool = False
    """Whether callers need a key of ours, so that theirs is not one of the upstream's."""

    def ask(self, request: Request, route: Route, mode: Mode | None = None) -> Caller:
        """Who asks on this request.

        Raises:
            Refused: the deadline header is not a positive number of milliseconds.
        """
        given = header(request, DEADLINE_HEADER)
        if given is not None and not (given.isascii() and given.isdecimal() and int(given[:9]) > 0):
            raise Refused(
                400, f"{DEADLINE_HEADER.decode()} must be a positive whole number of milliseconds", "bad_header"
            )
        seconds = max(SHORTEST_DEADLINE_S, int(given[:9]) / 1000) if given else None
        state = request.scope["state"]
        return Caller(route, state["caller"], mode, seconds, state["arrived"], actions=state["actions"])

    async def read(
        self, request: Request, route: Route, kind: type[M], *, table: FieldTable, many: str = ""
    ) -> tuple[M, CheckedBody]:
        """The body as one of the wires' models, and what the walk over its fields found.

        Args:
            request: its body has not been read.
            route: its fail mode says whether what cannot be judged is refused.
            kind: the model.
            table: the wire's fields.
            many: the field whose items are exchanges.

        Raises:
            Refused: as `read_json`; 413 for too many items; 400 for what is not what a field may hold.
        """
        value = await read_json(request, self.policy.limits)
        listed = value.get(many) if many and isinstance(value, dict) else None
        if isinstance(listed, list) and len(listed) > self.policy.limits.items:
            raise Refused(413, f"{many} has more than {self.policy.limits.items} items", "too_many_items")
        checked = table.read(value)
        body = shaped(value, kind)
        self.let_pass(route, checked.refused)
        return body, checked

    def let_pass(self, route: Route, unread: Sequence[str]) -> None:
        """Count what cannot be judged and passes all the same (fail mode `open`, shadow mode).

        Raises:
            Refused: 400 where the route's rules let nothing unjudged pass.
        """
        if unread and self.policy.rules(route).stops_unread:
            raise Refused(400, f"{unread[0]}, and fail mode closed lets nothing unjudged pass", "unjudgeable")
        self.metrics.unjudged.labels(route, "open", "unreadable").inc(len(unread))

    async def judge(self, request: Request, exchanges: Sequence[Exchange], ask: Caller) -> list[Verdict]:
        """Decided verdicts, unless the caller leaves first.

        Raises:
            Refused: as `Core.judge` and `loaded`.
            ClientDisconnect: the caller left; the work is cancelled.
        """
        return self.loaded(await until_gone(request, self.core.judge(exchanges, ask)))

    async def judge_all(self, request: Request, exchanges: Sequence[Exchange], ask: Caller) -> list[Verdict]:
        """As `judge`, for any number of exchanges (`Core.judge_all`)."""
        return self.loaded(await until_gone(request, self.core.judge_all(exchanges, ask)))

    def loaded(self, verdicts: list[Verdict]) -> list[Verdict]:
        """The verdicts, unless the guard was still being loaded and they let nothing pass.

        Raises:
            Refused: 503: whoever asks again in a moment gets a verdict.
        """
        early = [] if self.core.worker.loaded.is_set() else [v for v in verdicts if v.status == "unavailable"]
        if any(map(blocks, early)):
            raise unjudged(early[0])
        return verdicts


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; records allowed."""
    return Response(dumps(value), status, headers, "application/json")


def page_routes(folder: Path, pages: Mapping[str, tuple[str, str]]) -> list[routing.Route]:
    """The files of a folder as routes.

    Args:
        pages: path -> file name and media type.
    """
    texts = {
        path: Response((folder / name).read_text("utf-8"), media_type=kind) for path, (name, kind) in pages.items()
    }
    return [routing.Route(path, text, methods=["GET"], name="playground") for path, text in texts.items()]


def unjudged(verdict: Verdict) -> Refused:
    """The message to a caller when nothing unjudged may pass."""
    why = verdict.error or verdict.status
    message = f"this could not be judged ({why}), and fail mode closed lets nothing unjudged pass"
    return Refused(503, message, f"unjudged_{verdict.status}", {"retry-after": "1"})


def whole(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain values: what `records.to_dict` gives, without its deep copies."""
    labels, usage = verdict.labels, verdict.usage
    fields = {name: getattr(verdict, name) for name in VERDICT_FIELDS}
    return {
        **fields,
        "labels": {name: getattr(labels, name) for name in LABEL_FIELDS},
        "scores": dict(verdict.scores),
        "steps": [{"task": s.task, "text": s.text} for s in verdict.steps],
        "notes": dict(verdict.notes),
        "usage": {name: getattr(usage, name) for name in USAGE_FIELDS},
    }


def brief(verdict: Verdict) -> dict[str, Any]:
    """A verdict for other people's wires: without its id and the texts that the model wrote."""
    return {name: value for name, value in whole(verdict).items() if name not in NOT_BRIEF}


def described(kind: type[BaseModel], summary: str) -> dict[str, Any]:
    """Arguments of a route whose body is read by us and not by FastAPI, so that it is in the API description."""
    schema = kind.model_json_schema()
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"summary": summary, "openapi_extra": {"requestBody": body}}
