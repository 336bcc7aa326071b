"""Frames between the server and the process that holds the guard: a length, then a pickle.

Both ends are this package under one user; nothing from the network is ever unpickled. The child imports this file, and
waits for no event loop.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Literal

from guardreasoner.guards.base import Guard
from guardreasoner.types import Exchange, Labels, Message, Mode, Step, Task, Usage, Verdict

Opener = Callable[[], Guard]
"""Makes the guard, in the child; picklable (a module-level function or `functools.partial` of one)."""
_LENGTH = struct.Struct(">I")
READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class JudgeJob:
    """Exchanges to judge together."""

    number: int
    exchanges: tuple[Exchange, ...]
    mode: Mode
    deadline: float
    """`time.monotonic()` seconds, one clock for all processes of a machine."""
    steps: bool = False
    """Send reasoning steps as they come, where the guard can."""
    tasks: tuple[Task, ...] | None = None
    """Ask only these, where the guard can leave the others out; None = all that make sense."""


@dataclass(frozen=True, slots=True)
class CallOff:
    """The caller of this job has left. The child checks for it at each step it reports."""

    number: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the server knows of the guard."""

    name: str = "guard"
    kinds: tuple[str, ...] = ()
    """Kinds of harm that its verdicts tell in every mode."""
    judges_parts: bool = False
    """It judges a last turn and a reply by themselves too, so that it need not be asked to."""
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Mode -> task -> P at or above which it gives the positive label, where that was fitted."""

    first: str = ""
    """Of two guards in a row, the name of the one that judges everything; "" = there is one guard."""

    @classmethod
    def of(cls, guard: Guard) -> Loaded:
        """What a guard says of itself; one of somebody's own says its name."""
        thresholds: dict[str, dict[str, float]] = {}
        for (task, mode), curve in getattr(getattr(guard, "calibration", None), "curves", {}).items():
            thresholds.setdefault(mode, {})[task.value] = curve.threshold
        kinds, parts = tuple(getattr(guard, "kinds", ())), bool(getattr(guard, "judges_parts", False))
        return cls(guard.name, kinds, parts, thresholds, getattr(getattr(guard, "first", None), "name", ""))


@dataclass(frozen=True, slots=True)
class Event:
    """What the child says."""

    kind: Literal["ready", "broken", "step", "done", "failed", "idle"]
    number: int = 0
    value: Any = None
    """ready: what is `Loaded`; broken, failed: one sentence; step: its
    index and `Step`; done: verdicts in order."""
    idle: bool = False
    """The guard is free for the next job; where an engine still runs after `done`, `idle` comes as an event."""


def _as_call(kind: type[Any]) -> Callable[[Any], tuple[type[Any], tuple[Any, ...]]]:
    values = attrgetter(*(f.name for f in fields(kind)))
    return lambda noun: (kind, values(noun))


_AS_CALLS: dict[type, Callable[[Any], Any]] = {
    kind: _as_call(kind) for kind in (JudgeJob, Event, Exchange, Message, Verdict, Labels, Usage, Step)
}
"""A frozen dataclass pickles itself field by field in Python, there and back; as a call it costs a third less."""


def pack(value: Any) -> bytes:
    """One frame."""
    content = io.BytesIO()
    pickler = pickle.Pickler(content, protocol=pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {**copyreg.dispatch_table, **_AS_CALLS}
    pickler.dump(value)
    return _LENGTH.pack(content.tell()) + content.getvalue()


def cut(buffer: bytearray) -> bytes | None:
    """The first frame of what has arrived, taken out of it; None = it is not whole yet."""
    if len(buffer) < _LENGTH.size:
        return None
    end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
    if len(buffer) < end:
        return None
    frame = bytes(buffer[_LENGTH.size : end])
    del buffer[:end]
    return frame


class ChildSocket:
    """The child's end: it waits in the socket itself, and takes all that has come in one read."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._buffer = sock, bytearray()

    def say(self, event: Event) -> None:
        """Send an event."""
        self._sock.sendall(pack(event))

    def next(self) -> Any:
        """Wait for the next frame's value.

        Raises:
            EOFError: the other end is gone.
        """
        while (frame := cut(self._buffer)) is None:
            part = self._sock.recv(READ_BYTES)
            if not part:
                raise EOFError("the other end is gone")
            self._buffer += part
        return pickle.loads(frame)

    def stirs(self) -> bool:
        """Whether anything has come behind the last frame; the end of the other end counts."""
        if self._buffer:
            return True
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return True
