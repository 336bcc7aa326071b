"""Run a server: sockets, signals, and an orderly end.

On SIGTERM or SIGINT the server reports it at `/readyz`, asks every caller to reconnect elsewhere (`connection: close`),
keeps answering for a moment, then accepts no more and finishes the requests that it has. A second SIGINT ends
it at once.
"""

from __future__ import annotations

import asyncio
import gc
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from guardreasoner.errors import EngineError
from guardreasoner.serve.access.connection import FrontDoor
from guardreasoner.serve.access.limits import WHOLE
from guardreasoner.serve.access.log import log
from guardreasoner.serve.core.judge import Core
from guardreasoner.serve.decide import unmatchable
from guardreasoner.serve.policy import ROUTES, Limits

DRAIN_S = 1.0
"""Seconds after the signal in which connections are still accepted."""
GRACE_S = 5.0
"""Beyond the longest deadline, for answers that are being sent."""


class Server(uvicorn.Server):
    """uvicorn, with a drain before its end."""

    def __init__(self, config: uvicorn.Config, gate: FrontDoor, drain_s: float = DRAIN_S) -> None:
        super().__init__(config)
        self.gate, self.drain_s = gate, drain_s

    @property
    def core(self) -> Core:
        app = self.gate.app
        assert isinstance(app, FastAPI)
        core: Core = app.state.core
        return core

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains; a second SIGINT does not wait."""
        if self.core.draining:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        self.core.draining = self.gate.closing = True
        log.info("stopping: no new work after %.1f s", self.drain_s)
        self._loop.call_later(self.drain_s, self._stop_accepting)

    def _stop_accepting(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        self._loading = asyncio.create_task(self._watch_loading())

    async def _watch_loading(self) -> None:
        await self.core.worker.loaded.wait()
        gc.collect()
        gc.freeze()  # what is loaded now stays: a full collection need not walk through it again (tens of ms)
        if self.core.worker.broken is None:
            log.info("guard %s is ready", self.core.worker.name)
            for sentence in unmatchable(self.core.policy, self.core.worker.guard.kinds):
                log.warning("%s", sentence)
        else:
            self.should_exit = True


def serve(gate: FrontDoor, sock: socket.socket, drain_s: float = DRAIN_S) -> None:
    """Serve on a listening socket until a signal comes."""
    # asyncio sets this only on sockets that name their protocol; without it a kept connection waits 40 ms an answer for
    # the client's delayed acknowledgement. Accepted connections inherit it.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = Server(configuration(gate), gate, drain_s)
    server.run(sockets=[sock])
    if server.core.worker.broken is not None:
        raise EngineError(server.core.worker.broken)


def configuration(gate: FrontDoor) -> uvicorn.Config:
    """uvicorn's settings for a gate."""
    app = gate.app
    assert isinstance(app, FastAPI)
    policy = app.state.core.policy
    limits: Limits = policy.limits
    longest = max(policy.rules(route).deadline("full") for route in ROUTES)
    return uvicorn.Config(
        gate,
        http=receipt_protocol(limits.body_seconds, most_connections(proxies=policy.proxy.upstream is not None)),
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(longest + policy.proxy.timeout_s * bool(policy.proxy.upstream) + GRACE_S),
    )


class JoiningTransport:
    """A connection that sends the head of an answer together with what comes right behind it.

    uvicorn writes head and body apart, which costs two packets and wakes the caller for the first one only to wait for
    the second. The head never waits for anything but the rest of what the server is doing now.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head = b""
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, or hold what can only be a head."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/") and data.endswith(b"\r\n\r\n"):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close, once everything is sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            self.write(b"")


HEAD_BYTES = 64_000
"""Of a request's line and headers."""
SPARE = 36
"""Descriptors that connections leave to the guard's process, to files, and to what is being closed."""
_UPGRADE = re.compile(rb"\r\n(upgrade|http2-settings):", re.I)
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def most_connections(*, proxies: bool) -> int:
    """How many connections may be open: as many as there are descriptors for, half of them where each may need two."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(4, (soft - SPARE) // (2 if proxies else 1))


def receipt_protocol(seconds: float, most: int = sys.maxsize) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol with limits that it has not (0.54): on the time and size of a head, on connections.

    A head is given to the parser once it is whole, so that nothing grows while it is not. An offer to upgrade the
    connection (Java's client offers HTTP/2) is taken out of it: the parser would treat the body as another protocol.

    Args:
        seconds: that a request's headers may take to arrive. The body has a limit of its own (`limits`).
        most: connections that may be open; more are closed as they come.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    base: Any = AutoHTTPProtocol
    open_now: set[int] = set()

    class Receipt(base):  # type: ignore[misc]
        """Arms a timer when a request may begin, and disarms it when one is complete enough to be answered."""

        _timer: asyncio.TimerHandle | None = None
        _head = b""
        _received = _body = 0
        """Bytes since the head of the present request, and those of them that are its body."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if len(open_now) >= most:
                transport.abort()
                return
            open_now.add(id(self))
            self.transport = JoiningTransport(transport, self.loop)
            self._arm(transport.close)

        def data_received(self, data: bytes) -> None:
            if self._between():
                head = self._whole_head(data)
                if head is None:
                    return
                self._received, self._body, data = 0, 0, head
            self._received += len(data)
            super().data_received(data)
            if self._received - self._body > 2 * HEAD_BYTES + self._body:  # chunk sizes, trailers, what comes next
                self._turn_away()
            elif not self._between():
                self._disarm()
                if not self.cycle.more_body:
                    self.cycle.scope["state"][WHOLE] = True
            elif self._timer is None:
                self._arm(self.transport.close)

        def on_body(self, body: bytes) -> None:
            self._body += len(body)
            super().on_body(body)

        def on_header(self, name: bytes, value: bytes) -> None:
            if len(self.headers) > HEAD_BYTES // 64:
                raise ValueError("too many headers")
            super().on_header(name, value)

        def connection_lost(self, exc: Exception | None) -> None:
            open_now.discard(id(self))
            self._disarm()
            super().connection_lost(exc)

        def _whole_head(self, data: bytes) -> bytes | None:
            """What has come of a head and what follows it, once the head is whole; None while it is not."""
            if self._timer is None:
                self._arm(self.transport.close)
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end > HEAD_BYTES or (end < 0 and len(self._head) > HEAD_BYTES):
                self._turn_away()
                return None
            if end < 0:
                return None
            head, self._head = self._head, b""
            return _UPGRADE.sub(rb"\r\nx-\1:", head[: end + 2]) + head[end + 2 :]

        def _turn_away(self) -> None:
            if not self.transport.is_closing():
                self.transport.write(TOO_LARGE)
                self.transport.close()

        def _between(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _arm(self, close: Callable[[], None]) -> None:
            self._disarm()
            self._timer = self.loop.call_later(seconds, close)

        def _disarm(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Receipt
