"""JSON over HTTP to a provider: one client, bounded retries with backoff and jitter, a deadline on every call.

Status codes become finishes once, here: 429 and 529 = overloaded, 5xx and no connection = unavailable, too slow =
timeout. These are tried again; what the provider says about the request itself (4xx) is not. The key is read from the
environment when the client is made; it is in no message.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from guardreasoner.errors import ConfigError, need
from guardreasoner.plans import Finish

T = TypeVar("T")
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
BUSY = frozenset({429, 529})


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: a JSON object, or why there is none."""

    body: Mapping[str, Any] | None
    finish: Finish = "stop"
    error: str | None = None
    status: int = 0
    """HTTP status; 0 = there was no answer."""


class JsonClient:
    """POSTs JSON objects; safe to share between threads."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        timeout_s: float = 120.0,
        retries: int = 4,
        in_flight: int = 16,
        backoff_s: float = 0.5,
    ) -> None:
        """Args:
        url: the whole address.
        headers: with the key.
        timeout_s: of one attempt.
        retries: attempts after the first.
        in_flight: requests at a time.
        backoff_s: wait before the first retry; doubles, with jitter, up to 30 s.

        Raises:
            MissingDependency: httpx is not installed.
        """
        self.url, self.timeout_s, self.retries, self.backoff_s = url, timeout_s, retries, backoff_s
        self.in_flight = in_flight
        self._httpx = need("httpx", "openai")
        limits = self._httpx.Limits(max_connections=in_flight)
        self._client = self._httpx.Client(headers=dict(headers), timeout=timeout_s, limits=limits)

    def post(self, body: Mapping[str, Any], deadline: float | None = None) -> Reply:
        """One request, tried again where that may help, until the deadline (`time.monotonic()` seconds)."""
        reply = Reply(None, "unavailable", "the server was not asked")
        for attempt in range(self.retries + 1):
            left = self.timeout_s if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return Reply(None, "timeout", "the deadline passed")
            reply, wait = self._attempt(body, min(left, self.timeout_s))
            if reply.body is not None or (reply.status and reply.status not in RETRIED):
                return reply
            backoff = min(30.0, self.backoff_s * 2**attempt) * random.uniform(0.5, 1.0)
            pause = max(wait * random.uniform(1.0, 1.25), backoff)  # never sooner than the server asks
            if attempt == self.retries or (deadline is not None and time.monotonic() + pause >= deadline):
                return reply
            time.sleep(pause)
        return reply

    def each(self, items: Sequence[T], work: Callable[[T], Any]) -> list[Any]:
        """`work` on every item, `in_flight` at a time, results in order."""
        if len(items) <= 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(min(self.in_flight, len(items)), thread_name_prefix="http") as pool:
            return list(pool.map(work, items))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _attempt(self, body: Mapping[str, Any], timeout_s: float) -> tuple[Reply, float]:
        """One attempt and the seconds the server asks to wait."""
        try:
            answer = self._client.post(self.url, json=body, timeout=timeout_s)
        except self._httpx.TimeoutException:
            return Reply(None, "timeout", f"no answer within {timeout_s:.1f} s"), 0.0
        except self._httpx.HTTPError as error:
            return Reply(None, "unavailable", f"the server cannot be reached ({type(error).__name__})"), 0.0
        status = int(answer.status_code)
        if status == 200:
            try:
                found = answer.json()
            except ValueError:
                found = None
            if isinstance(found, dict):
                return Reply(found, status=status), 0.0
            return Reply(None, "unavailable", "the server answered with something that is no JSON object", 200), 0.0
        finish: Finish = "overloaded" if status in BUSY else "unavailable"
        return Reply(None, finish, _said(status), status), _retry_after(answer.headers.get("retry-after"))


def key_from(variable: str) -> str:
    """An API key from the environment.

    Raises:
        ConfigError: the variable is not set.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"{variable} is not set; put your API key there")
    return key


def _said(status: int) -> str:
    known = {
        400: "the server refused the request as malformed",
        401: "the server did not accept the API key",
        403: "the API key may not use this model",
        404: "the server knows no such model or address",
        413: "the request is too large for the server",
        429: "the server asks to slow down, still after retries",
        529: "the server is overloaded, still after retries",
    }
    return f"{known.get(status, 'the server failed')} (HTTP {status})"


def _retry_after(header: str | None) -> float:
    try:
        return min(30.0, max(0.0, float(header or 0)))
    except ValueError:
        return 0.0
