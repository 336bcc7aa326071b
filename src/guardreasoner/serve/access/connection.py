"""The outermost layer: who may come in, and what a client sees when something goes wrong.

Every exception of an inner layer ends here, so that no server above can print it: a refusal becomes its JSON, anything
else a 500 that names only the kind of error.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardreasoner.serve.access.keys import HostNames, Keys
from guardreasoner.serve.access.limits import Overloaded, Refused
from guardreasoner.serve.access.log import log
from guardreasoner.serve.access.prometheus import Metrics
from guardreasoner.serve.access.spans import configured
from guardreasoner.serve.decide import SEVERITY

R = TypeVar("R")
Endpoint = Callable[[Request], Awaitable[Response]]
OPEN_PATHS = frozenset(("/healthz", "/readyz", "/", "/playground.js", "/playground.css"))
"""Paths that need no key: they reveal nothing about callers."""

PROBED = frozenset(("/healthz", "/readyz"))
"""Asked by orchestrators under whatever address a pod has just got; so is `/metrics`, where that needs a key."""

OPERATIONS = frozenset(("healthz", "readyz", "metrics"))
"""Routes that are answered however busy the server is, and not logged."""

WATCHED_AFTER_S = 0.02
"""Work that is done by then ends before its caller could be missed."""

_SLASHES = re.compile("//+")
HEADERS: dict[bytes, bytes] = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


class FrontDoor:
    """Checks every request before the application sees it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        names: HostNames,
        metrics: Metrics,
        routes: Mapping[str, str],
        wires: Mapping[str, Endpoint],
        most: int,
    ) -> None:
        """Args:
        app: what is behind.
        keys: who may call.
        names: by which names the server may be called.
        metrics: where answers are counted.
        routes: path -> label in the metrics; other paths are counted as `other`.
        wires: path -> what answers a POST there. It reads the body itself, and what it raises ends here, so it is
            called straight: the framework's layers would only cost time, except to make the spans of a traced request.
        most: requests that may be in progress.
        """
        self.app, self.keys, self.names, self.metrics, self.routes = app, keys, names, metrics, routes
        self.wires = wires
        self.most, self.inside = most, 0
        self.traced = False
        """Whether spans go anywhere, as it is when the server starts."""
        self.closing = False
        """Tell every caller to open a new connection next time: this server is about to stop."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self.traced = configured()
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        answer = _Sending(send, closing=self.closing)
        scope["path"] = _SLASHES.sub("/", scope["path"].rstrip("/")) or "/"  # a base URL often ends in one too many
        route = self.routes.get(scope["path"], "other")
        caller, actions = "", set[str]()
        self.inside += 1
        try:
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            caller = self._admit(scope["path"], route, headers)
            scope.setdefault("state", {}).update(caller=caller, arrived=began, headers=headers, actions=actions)
            wire = self.wires.get(scope["path"])
            if wire is None or scope["method"] != "POST" or self.traced:
                inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope  # the server sends no body
                await self.app(inner, receive, answer)
            else:
                response = await wire(Request(scope, receive))
                await response(scope, receive, answer)
        except Refused as error:
            await answer.refuse(error)
        except ClientDisconnect:
            answer.code = answer.code or 499  # the client has left; nginx counts it the same way
        except Exception as error:
            log.error("internal error on %s: %s", route, type(error).__name__)
            await answer.refuse(Refused(500, f"internal error ({type(error).__name__})", "internal"))
        finally:
            self.inside -= 1
        self.metrics.of(self.metrics.http, route, str(answer.code)).inc()
        if route not in OPERATIONS:
            milliseconds = (time.monotonic() - began) * 1000
            action = next((f'"{a}"' for a in SEVERITY if a in actions), "null")  # of all that was judged, the severest
            line = '{"route": "%s", "code": %d, "action": %s, "ms": %.1f, "key": "%s"}'
            log.info(line, route, answer.code, action, milliseconds, caller)

    def _admit(self, path: str, route: str, headers: Mapping[bytes, str]) -> str:
        """The name of who calls."""
        if path not in PROBED and not (route == "metrics" and self.keys.digests):
            self.names.check(headers.get(b"host"), headers.get(b"origin"))
        if path in OPEN_PATHS:
            return ""
        given = headers.get(b"authorization")
        if given is None and b"x-api-key" in headers:  # LiteLLM's generic guardrail sends its key so
            given = f"Bearer {headers[b'x-api-key']}"
        holder = self.keys.holder(given)
        if self.inside > self.most and route not in OPERATIONS:
            raise Overloaded(1.0, "too many requests are in progress; retry later")
        return holder


class _Sending:
    """`send`, with our headers, remembering what was sent."""

    def __init__(self, send: Send, *, closing: bool) -> None:
        self.send, self.closing, self.code = send, closing, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.code = message["status"]
            own = HEADERS | {b"connection": b"close"} if self.closing else HEADERS
            given = {name.lower() for name, _ in message["headers"]}
            extra = [pair for pair in own.items() if pair[0] not in given]
            message = {**message, "headers": [*message["headers"], *extra]}
        await self.send(message)

    async def refuse(self, error: Refused) -> None:
        """Send a refusal, unless an answer has already begun."""
        if self.code:
            return
        body = json.dumps(error.body()).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
        start = [(k.encode(), v.encode()) for k, v in headers.items()]
        with suppress(ClientDisconnect, OSError):
            await self({"type": "http.response.start", "status": error.status, "headers": start})
            await self.send({"type": "http.response.body", "body": body})


async def until_gone(request: Request, work: Awaitable[R]) -> R:
    """The result of some work, which is cancelled when the caller leaves. The body must have been read.

    Raises:
        ClientDisconnect: the caller left.
    """
    own = asyncio.current_task()
    assert own is not None
    left = False
    watching: asyncio.Task[None] | None = None

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        own.cancel()

    def begin() -> None:
        nonlocal watching
        watching = asyncio.create_task(watch())

    timer = asyncio.get_running_loop().call_later(WATCHED_AFTER_S, begin)
    try:
        return await work
    except asyncio.CancelledError:
        if not left:
            raise
        own.uncancel()
        raise ClientDisconnect from None
    finally:
        timer.cancel()
        if watching is not None:
            watching.cancel()
