"""A load generator on plain sockets: cheap enough to share two cores with what it measures.

Requests start at their time, whether or not earlier ones have been answered (an open loop), or as soon as one of a
fixed number of callers is free (a closed loop). Every answer is kept with the number of its request.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request."""

    number: int
    code: int
    """0 = the connection broke."""
    body: bytes
    seconds: float
    start: float
    """Seconds since the run began."""

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Target:
    """One URL to post JSON to, over kept connections."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        extra = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
        self.head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n{extra}"
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, number: int, body: bytes, began: float) -> Answer:
        """Send one request and read its answer."""
        start = time.perf_counter()
        try:
            code, content = await self._post(body)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            code, content = 0, b""
        end = time.perf_counter()
        return Answer(number, code, content, end - start, start - began)

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        reader, writer = self._kept() or await asyncio.open_connection(self.host, self.port)
        writer.write(f"{self.head}content-length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        if fields.get("transfer-encoding") == "chunked":
            content = await _chunks(reader)
        else:
            content = await reader.readexactly(int(fields.get("content-length", "0")))
        if fields.get("connection") == "close":
            writer.close()
        else:
            self.idle.append((reader, writer))
        return int(lines[0].split(" ")[1]), content

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A kept connection that is still one: a server ends those that were idle for long, and no client uses them."""
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def close(self) -> None:
        """Close what is kept open."""
        for _, writer in self.idle:
            writer.close()
        self.idle.clear()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readline()).strip() or b"0", 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(parts)


async def open_loop(target: Target, body: Callable[[int], bytes], *, rate: float, seconds: float) -> list[Answer]:
    """Start `rate` requests per second, evenly, for some seconds; waits for all answers."""
    began = time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        wait = began + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(target.post(number, body(number), began)))
    answers = list(await asyncio.gather(*tasks))
    await target.close()
    return answers


async def closed_loop(target: Target, body: Callable[[int], bytes], *, callers: int, seconds: float) -> list[Answer]:
    """So many callers, each asking again as soon as it is answered."""
    began = time.perf_counter()
    answers: list[Answer] = []
    numbers = iter(range(10**9))

    async def call() -> None:
        while time.perf_counter() - began < seconds:
            number = next(numbers)
            answers.append(await target.post(number, body(number), began))

    await asyncio.gather(*(call() for _ in range(callers)))
    await target.close()
    return answers


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """p50, p95, p99."""
    if len(values) < 2:
        return (values[0],) * 3 if values else (float("nan"),) * 3
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[94], cuts[98]
