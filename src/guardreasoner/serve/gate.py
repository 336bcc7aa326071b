"""The outermost layer: who may come in, and what leaves when something went wrong.

Everything an inner layer raises ends here, so that no server above it can print it: a refusal becomes its JSON, and
anything else a 500 that names the kind of error only.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardreasoner.serve.keys import Keys, Names
from guardreasoner.serve.limits import Overloaded, Refused
from guardreasoner.serve.logs import log
from guardreasoner.serve.metrics import Metrics

R = TypeVar("R")
OPEN_PATHS = frozenset(("/healthz", "/readyz", "/", "/playground.js", "/playground.css"))
"""What needs no key: it says nothing about anybody."""

OPERATIONS = frozenset(("healthz", "readyz", "metrics"))
"""Routes that are answered however busy the server is, and not logged."""

HEADERS: Mapping[str, str] = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


class Gate:
    """Checks every request before the application sees it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        names: Names,
        metrics: Metrics,
        routes: Mapping[str, str],
        most: int,
    ) -> None:
        """Args:
        app: what is behind.
        keys: who may call.
        names: by which names the server may be called.
        metrics: where answers are counted.
        routes: path -> label in the metrics; other paths are counted as `other`.
        most: requests that may be in progress.
        """
        self.app, self.keys, self.names, self.metrics, self.routes = app, keys, names, metrics, routes
        self.most, self.inside = most, 0
        self.closing = False
        """Tell every caller to open a new connection next time: this server is about to stop."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        answer = _Answer(send, closing=self.closing)
        route = self.routes.get(scope["path"], "other")
        caller = ""
        self.inside += 1
        try:
            caller = self._admit(scope, route)
            scope.setdefault("state", {}).update(caller=caller, arrived=began)
            await self.app(scope, receive, answer)
        except Refused as error:
            await answer.refuse(error)
        except ClientDisconnect:
            answer.code = answer.code or 499  # nobody is there to read it; counted as nginx counts it
        except Exception as error:
            log.error("internal error on %s: %s", route, type(error).__name__)
            await answer.refuse(Refused(500, f"internal error ({type(error).__name__})", "internal"))
        finally:
            self.inside -= 1
        self.metrics.http.labels(route, str(answer.code)).inc()
        if route not in OPERATIONS:
            milliseconds = (time.monotonic() - began) * 1000
            log.info('{"route": "%s", "code": %d, "ms": %.1f, "key": "%s"}', route, answer.code, milliseconds, caller)

    def _admit(self, scope: Scope, route: str) -> str:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        self.names.check(headers.get(b"host"), headers.get(b"origin"))
        if scope["path"] in OPEN_PATHS:
            return ""
        given = headers.get(b"authorization")
        if given is None and b"x-api-key" in headers:  # LiteLLM's generic guardrail sends its key so
            given = f"Bearer {headers[b'x-api-key']}"
        holder = self.keys.holder(given)
        if self.inside > self.most and route not in OPERATIONS:
            raise Overloaded(1.0, "too many requests are in progress; retry later")
        return holder


class _Answer:
    """`send`, with our headers, remembering what was sent."""

    def __init__(self, send: Send, *, closing: bool) -> None:
        self.send, self.closing, self.code = send, closing, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.code = message["status"]
            own = dict(HEADERS) | ({"connection": "close"} if self.closing else {})
            given = {name.lower() for name, _ in message["headers"]}
            extra = [(k.encode(), v.encode()) for k, v in own.items() if k.encode() not in given]
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

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        own.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if not left:
            raise
        own.uncancel()
        raise ClientDisconnect from None
    finally:
        watching.cancel()
