"""uvicorn's HTTP protocol with limits that it has not (0.54): on the time and size of a head, on connections.

A head is given to the parser once it is whole, so that nothing grows while it is not. An offer to upgrade the
connection (Java's client offers HTTP/2) is taken out of it: the parser would treat the body as another protocol.
"""

from __future__ import annotations

import asyncio
import re
import resource
import sys
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from guardreasoner.serve.access.limits import WHOLE

HEAD_BYTES = 64_000
"""Of a request's line and headers."""
SPARE = 36
"""Descriptors that connections leave to the guard's process, to files, and to what is being closed."""
_UPGRADE = re.compile(rb"\r\n(upgrade|http2-settings):", re.I)
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_Parsing: Any = AutoHTTPProtocol
"""With uvicorn's parser in C where that is installed."""


def most_connections(*, proxies: bool) -> int:
    """How many connections may be open: as many as there are descriptors for, half of them where each may need two."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(4, (soft - SPARE) // (2 if proxies else 1))


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


class BoundedProtocol(_Parsing):  # type: ignore[misc]
    """Arms a timer when a request may begin, and disarms it when one is complete enough to be answered."""

    _timer: asyncio.TimerHandle | None = None
    _head = b""
    _received = _body = 0
    """Bytes since the head of the present request, and those of them that are its body."""

    def __init__(self, *args: Any, seconds: float, most: int, open_now: set[int], **options: Any) -> None:
        """Args:
        seconds: that a request's headers may take to arrive. The body has a limit of its own (`limits`).
        most: connections that may be open; more are closed as they come.
        open_now: the connections of the server, in which this one enters itself.
        """
        super().__init__(*args, **options)
        self._seconds, self._most, self._open = seconds, most, open_now

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self._open) >= self._most:
            transport.abort()
            return
        self._open.add(id(self))
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
        self._open.discard(id(self))
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
        self._timer = self.loop.call_later(self._seconds, close)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
