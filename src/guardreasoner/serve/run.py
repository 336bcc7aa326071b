"""Run a server: sockets, signals, and an orderly end.

On SIGTERM or SIGINT the server reports it at `/readyz`, asks every caller to reconnect elsewhere (`connection: close`),
keeps answering for a moment, then accepts no more and finishes the requests that it has. A second SIGINT ends
it at once.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from guardreasoner.errors import EngineError
from guardreasoner.serve.access.connection import FrontDoor
from guardreasoner.serve.access.log import log
from guardreasoner.serve.access.protocol import BoundedProtocol, most_connections
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
    most = most_connections(proxies=policy.proxy.upstream is not None)
    return uvicorn.Config(
        gate,
        http=partial(BoundedProtocol, seconds=limits.body_seconds, most=most, open_now=set()),  # type: ignore[arg-type]
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(longest + policy.proxy.timeout_s * bool(policy.proxy.upstream) + GRACE_S),
    )
