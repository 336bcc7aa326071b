"""Run a server: sockets, signals, and an orderly end.

On SIGTERM or SIGINT the server says so at `/readyz`, asks every caller to reconnect elsewhere (`connection: close`),
goes on answering for a moment, then closes its door and answers what is still inside. A second SIGINT ends it at once.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from guardreasoner.errors import EngineError
from guardreasoner.serve.core.judge import Core
from guardreasoner.serve.door.connection import Gate
from guardreasoner.serve.door.limits import WHOLE
from guardreasoner.serve.door.log import log
from guardreasoner.serve.policy import ROUTES, Limits

DRAIN_S = 1.0
"""How long the door stays open after the signal."""
GRACE_S = 5.0
"""Beyond the longest deadline, for answers that are being sent."""


class Server(uvicorn.Server):
    """uvicorn, with a drain before its end."""

    def __init__(self, config: uvicorn.Config, gate: Gate, drain_s: float = DRAIN_S) -> None:
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
        self._loop.call_later(self.drain_s, self._close_door)

    def _close_door(self) -> None:
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
        else:
            self.should_exit = True


def serve(gate: Gate, sock: socket.socket, drain_s: float = DRAIN_S) -> None:
    """Serve on a listening socket until a signal comes.

    Raises:
        EngineError: the guard cannot be loaded.
    """
    # asyncio sets this only on sockets that name their protocol; without it a kept connection waits 40 ms an answer for
    # the client's delayed acknowledgement. Accepted connections inherit it.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = Server(configuration(gate), gate, drain_s)
    server.run(sockets=[sock])
    if server.core.worker.broken is not None:
        raise EngineError(server.core.worker.broken)


def configuration(gate: Gate) -> uvicorn.Config:
    """uvicorn's settings for a gate."""
    app = gate.app
    assert isinstance(app, FastAPI)
    policy = app.state.core.policy
    limits: Limits = policy.limits
    longest = max(policy.rules(route).deadline_s for route in ROUTES)
    return uvicorn.Config(
        gate,
        http=receipt_protocol(limits.body_seconds),
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(longest + policy.proxy.timeout_s * bool(policy.proxy.upstream) + GRACE_S),
    )


class Joining:
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


def receipt_protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, closing a connection whose request headers take longer than `seconds` to arrive.

    uvicorn limits the idle time between requests but not the time that a request may take to arrive (0.54). The body
    has a limit of its own (`limits`).
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    base: Any = AutoHTTPProtocol

    class Receipt(base):  # type: ignore[misc]
        """Arms a timer when a request may begin, and disarms it when one is complete enough to be answered."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.transport = Joining(transport, self.loop)
            self._arm(transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self._between():
                self._disarm()
                if not self.cycle.more_body:
                    self.cycle.scope["state"][WHOLE] = True
            elif self._timer is None:
                self._arm(self.transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def _between(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _arm(self, close: Callable[[], None]) -> None:
            self._timer = self.loop.call_later(seconds, close)

        def _disarm(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Receipt
