"""Frames between the server and the process that holds the guard: a length, then a pickle.

Both ends are this package under one user; nothing from the network is ever unpickled.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from guardreasoner.guards.base import Guard
from guardreasoner.types import Exchange, Mode

Opener = Callable[[], Guard]
"""Makes the guard, in the child; picklable (a module-level function or `functools.partial` of one)."""
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Job:
    """Exchanges to judge together."""

    number: int
    exchanges: tuple[Exchange, ...]
    mode: Mode
    deadline: float
    """`time.monotonic()` seconds, one clock for all processes of a machine."""
    steps: bool = False
    """Send reasoning steps as they come, where the guard can."""


@dataclass(frozen=True, slots=True)
class CallOff:
    """Nobody waits for this job any more. The child looks for it whenever it says a step."""

    number: int


@dataclass(frozen=True, slots=True)
class Event:
    """What the child says."""

    kind: Literal["ready", "broken", "step", "done", "failed", "idle"]
    number: int = 0
    value: Any = None
    """ready: the guard's name; broken, failed: one sentence; step: index and `Step`; done: verdicts in order."""


def pack(value: Any) -> bytes:
    """One frame."""
    content = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(content)) + content


class Frames(asyncio.Protocol):
    """The server's end: hands on each event as its last byte arrives, without a task in between."""

    def __init__(self, hear: Callable[[Event], None]) -> None:
        self.first, self.ended = asyncio.Event(), asyncio.Event()
        """Set with the first event, and when the other end is gone (which sets both)."""
        self._hear = hear
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        """Bytes arrived."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            event = pickle.loads(memoryview(self._buffer)[_LENGTH.size : end].tobytes())
            del self._buffer[:end]
            self._hear(event)
            self.first.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end is gone."""
        self.first.set()
        self.ended.set()


def receive_blocking(sock: socket.socket) -> Any:
    """The next frame, in a thread.

    Raises:
        EOFError: the other end is gone.
    """
    return pickle.loads(_exactly(sock, _LENGTH.unpack(_exactly(sock, _LENGTH.size))[0]))


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(min(1 << 20, size - len(parts)))
        if not part:
            raise EOFError("the other end is gone")
        parts += part
    return bytes(parts)
