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


async def receive(reader: asyncio.StreamReader) -> Any:
    """The next frame.

    Raises:
        EOFError: the other end is gone.
    """
    try:
        size = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0]
        return pickle.loads(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        raise EOFError("the other end is gone") from None


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
