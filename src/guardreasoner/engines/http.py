"""JSON over HTTP: the one client behind every provider, with bounded retries, deadlines and a limit on calls in flight.

Failures are translated here, once. `CallFailed` concerns one call: its `finish` becomes that of the completion, and if
it is retryable the call is repeated, with backoff and jitter, until the deadline. A plain `EngineError` means that no
further call can succeed: a refused key, an unknown model, an empty account. Messages hold nothing of the request, and
no key.

aiohttp carries the calls, at a tenth of the CPU time of the providers' SDKs (`bench/synthesize.py`); CPU time decides
how many calls fit in flight.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from guardreasoner.engines.base import PASSED, rough_offsets
from guardreasoner.errors import ConfigError, EngineError, need, printable
from guardreasoner.generation import Completion, Failure, Plan, Prompt

T = TypeVar("T")
MAX_WAIT_S = 30.0
"""Longest wait between two tries, whatever the server asks for."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class CallFailed(EngineError):
    """One call failed; trying again may help where `retryable` is true."""

    def __init__(
        self, finish: Failure, message: str, *, status: int = 0, retryable: bool = False, wait_s: float = 0.0
    ) -> None:
        """Args:
        status: HTTP status; 0 = there was no answer.
        retryable: whether the same request may succeed later.
        wait_s: seconds that the server asks to wait.
        """
        super().__init__(message)
        self.finish, self.status, self.retryable, self.wait_s = finish, status, retryable, wait_s


@dataclass(frozen=True, slots=True)
class Received(Generic[T]):
    """What came back from one call."""

    value: T
    headers: Mapping[str, str]
    """Names in lower case."""


class HttpClient:
    """POSTs JSON to one server: from threads by `run`, on a loop of its own, or awaited by `once` on the caller's."""

    def __init__(
        self,
        root: str,
        headers: Mapping[str, str],
        *,
        model: str,
        key: str,
        timeout_s: float = 120.0,
        retries: int = 4,
        in_flight: int = 16,
        backoff_s: float = 0.5,
    ) -> None:
        """Args:
        root: the address that paths are added to.
        headers: of every request, with the key.
        model: named in messages.
        key: the environment variable of the key, named in messages.
        timeout_s: of one attempt.
        retries: attempts after the first.
        in_flight: calls at a time.
        backoff_s: wait before the first retry; doubles, with jitter, up to 30 s.
        """
        self._http = need("aiohttp", "openai")
        self._root, self._headers, self._model, self._key = root.rstrip("/"), dict(headers), model, key
        self.timeout_s, self.retries, self.in_flight, self.backoff_s = timeout_s, retries, in_flight, backoff_s
        self._session: Any = None
        self._free = asyncio.Semaphore(in_flight)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    async def post(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], T], *, deadline: float | None = None
    ) -> T:
        """One answer, tried again where that may help, until the deadline (`time.monotonic()` seconds).

        Args:
            read: takes what it wants from the parsed answer; an answer that it cannot read counts as a failure.
            deadline: None = `timeout_s` per attempt is the only limit.
        """

        async def call() -> T:
            async with self._free:
                return (await self.once(path, body, read, timeout_s=self._left(deadline))).value

        return await retried(call, retries=self.retries, backoff_s=self.backoff_s, deadline=deadline)

    async def once(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], T], *, timeout_s: float
    ) -> Received[T]:
        """A single attempt, on the running loop; see `post`."""
        if self._session is None:
            connector = self._http.TCPConnector(limit=self.in_flight)
            limits = self._http.ClientTimeout(total=None, sock_connect=30)  # for the whole, `timeout_s` is the limit
            self._session = self._http.ClientSession(
                connector=connector, headers=self._headers, timeout=limits, trust_env=True
            )
        try:
            async with asyncio.timeout(timeout_s):
                async with self._session.post(self._root + path, json=body, allow_redirects=False) as response:
                    content = await response.read()
                    headers = {k.lower(): v for k, v in response.headers.items()}
                    status = int(response.status)
        except self._http.ServerTimeoutError:  # of `sock_connect`; it is a TimeoutError too
            raise CallFailed("unavailable", "the server cannot be reached", retryable=True) from None
        except TimeoutError:
            raise CallFailed("timeout", f"the server did not answer within {timeout_s:.3g} s", retryable=True) from None
        except (self._http.ClientError, OSError):
            raise CallFailed("unavailable", "the server cannot be reached", retryable=True) from None
        if status != 200:
            raise failure(status, headers, content, model=self._model, key=self._key)
        try:
            return Received(read(json.loads(content)), headers)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            problem = "the server's answer cannot be read"
            raise CallFailed("unavailable", problem, status=status, retryable=True) from None

    def run(self, work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Run coroutines on the client's own event loop; see `together`."""
        future = self._submit(together(work))
        try:
            return future.result()
        except BaseException:  # Ctrl-C too
            future.cancel()
            raise

    def close(self) -> None:
        """Close the connections; new ones are opened when the client is used again."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self.aclose(), loop).result(timeout=5)
            loop.call_soon_threadsafe(loop.stop)

    async def aclose(self) -> None:
        """The same for a caller that awaited `once` on a loop of its own."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._free = asyncio.Semaphore(self.in_flight)
                threading.Thread(target=self._loop.run_forever, name="http", daemon=True).start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _left(self, deadline: float | None) -> float:
        left = self.timeout_s if deadline is None else min(self.timeout_s, deadline - time.monotonic())
        if left <= 0:
            raise CallFailed("timeout", PASSED)
        return left


class Served:
    """What engines behind a server have in common: every row is a few calls, and all rows are under way together."""

    client: HttpClient

    def run(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        *,
        deadline: float | None = None,
        n: int = 1,
        temperature: float = 0.0,
    ) -> list[list[Completion]]:
        """See `Engine.run`."""
        for prompt in prompts:
            self._check(prompt, plan)
        done = self.client.run([self._row(p, plan, deadline, temperature) for p in prompts for _ in range(n)])
        return [done[i * n : (i + 1) * n] for i in range(len(prompts))]

    def _check(self, prompt: Prompt, plan: Plan) -> None:
        """Refuse a plan before anything is sent."""
        raise NotImplementedError

    async def _row(self, prompt: Prompt, plan: Plan, deadline: float | None, temperature: float) -> Completion:
        """One completion."""
        raise NotImplementedError

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """See `Engine.offsets`; four characters are taken for a token."""
        return rough_offsets(text)

    def close(self) -> None:
        """Close the connections; new ones are opened when the engine is used again."""
        self.client.close()


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of coroutines that run together, in order. The first error ends them all: each call may be billed."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def retried(
    call: Callable[[], Awaitable[T]],
    *,
    retries: int,
    backoff_s: float,
    deadline: float | None = None,
    limited_retries: int | None = None,
) -> T:
    """The result of a call, tried again after a retryable `EngineError`.

    Args:
        retries: attempts after the first.
        backoff_s: wait before the first retry; doubles, with jitter. Never less than what the server asks for.
        deadline: `time.monotonic()` seconds; no wait goes beyond it.
        limited_retries: in place of `retries` after HTTP 429; None = the same.
    """
    for attempt in count():
        try:
            return await call()
        except EngineError as error:
            limited = limited_retries is not None and getattr(error, "status", 0) == 429
            if not error.retryable or attempt >= (limited_retries if limited and limited_retries else retries):
                raise
            asked = min(MAX_WAIT_S, getattr(error, "wait_s", 0.0)) * random.uniform(1.0, 1.25)
            backoff = min(MAX_WAIT_S, backoff_s * 2 ** min(attempt, 16)) * random.uniform(0.5, 1.0)
            pause = max(asked, backoff)
            if deadline is not None and time.monotonic() + pause >= deadline:
                raise
        await asyncio.sleep(pause)
    raise AssertionError("unreachable")


def failure(status: int, headers: Mapping[str, str], content: bytes, *, model: str, key: str) -> EngineError:
    """What an HTTP status other than 200 means."""
    code = _error_code(content)
    if status in (401, 403):
        return EngineError(
            f"the server does not accept the API key in {key} for {printable(model)} (HTTP {status}): "
            "renew it and run the same command again"
        )
    if status == 404:
        return EngineError(
            f"the server knows no model {printable(model)!r} or no such address (HTTP 404); check model and base_url"
        )
    if code == "insufficient_quota":
        return EngineError("the account has no quota left (HTTP 429); add credit and run again")
    finish: Failure = "unavailable"
    if code in ("content_filter", "content_policy_violation"):
        finish, message = "refused", "the provider refused the request"
    elif code == "context_length_exceeded" or status == 413:
        finish, message = "input_too_long", "the prompt does not fit in the model's context"
    elif status == 429:
        finish, message = "overloaded", "the server asks to slow down"
    elif status in (503, 529):
        finish, message = "overloaded", "the server is overloaded"
    elif status >= 500 or status in (408, 409, 425):
        message = "the server failed"
    else:
        message = "the server does not take this request"
    again = status >= 500 or status in (408, 409, 425, 429)
    wait = retry_after(headers) if again else 0.0
    return CallFailed(finish, f"{message} (HTTP {status})", status=status, retryable=again, wait_s=wait)


def _error_code(content: bytes) -> str | None:
    try:
        return str(json.loads(content)["error"]["code"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait (`retry-after-ms`, `retry-after`); 0 = it does not say."""
    asked = seconds(headers.get("retry-after-ms", "") + "ms")
    return asked if asked is not None else seconds(headers.get("retry-after", "")) or 0.0


def seconds(text: str) -> float | None:
    """A header's duration (`6m0s`, `17ms`, `2`), or the time until its date; None where it is neither."""
    text = text.strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    if (parts := _DURATION.findall(text)) and "".join(a + b for a, b in parts) == text:
        return sum(float(amount) * _SECONDS[unit] for amount, unit in parts)
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = parse(text)
        except ValueError:
            continue
        return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return None


def plain_url(url: str, where: str) -> str:
    """A server's address, if it is one and holds no secret; the error (`ConfigError`) says `where` it stands."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a bracket left open, or a port out of range
        known = False
    if not known:
        raise ConfigError(f"{where} must be an http or https address")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"{where} must hold no user name, password, query or fragment: keys go in the environment")
    return url.rstrip("/")


def key_from(variable: str, *, required: bool = True) -> str:
    """An API key from the environment; empty if there is none and none is required."""
    key = os.environ.get(variable, "").strip()
    if not key and required:
        raise ConfigError(f"{variable} is not set; put your API key there")
    return key
