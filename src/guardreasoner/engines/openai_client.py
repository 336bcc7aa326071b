"""Calls to an OpenAI-compatible server: the official SDK, with a limit in flight, deadlines and bounded retries.

The SDK's own retries are off: ours know the deadline, and every failure becomes one `CallFailed` with a finish.
Messages hold nothing of the request, and no key.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from guardreasoner.errors import ConfigError, EngineError, need
from guardreasoner.plans import Finish

T = TypeVar("T")
CHAT_HOSTS = ("api.openai.com", "generativelanguage.googleapis.com", "openrouter.ai")
"""Providers that have a chat API and nothing else."""
MAX_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What a chat server answered."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: Finish = "stop"
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None


class CallFailed(Exception):
    """One call came to nothing; `finish` says why, the message is a sentence without anything of the request."""

    def __init__(self, finish: Finish, message: str, *, again: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.finish, self.again, self.wait_s = finish, again, wait_s


class OpenAIClient:
    """One server, one model. Safe to share between threads and event loops: the connections live on a loop of its
    own."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key: str = "OPENAI_API_KEY",
        in_flight: int = 16,
        timeout_s: float = 120.0,
        retries: int = 4,
        backoff_s: float = 0.5,
        max_tokens_field: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        """See `OpenAIEngine`, which takes the same."""
        self._sdk = need("openai", "openai")
        self._url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        host = urlsplit(self._url or "https://api.openai.com/v1").hostname or ""
        self.chat_only = any(host == h or host.endswith(f".{h}") for h in CHAT_HOSTS)
        """Whether the server is known to have no completions."""
        secret = os.environ.get(key, "").strip()
        if not secret and self.chat_only:
            raise ConfigError(f"{key} is not set; put your API key there")
        self._secret = secret or "none"
        self.model, self.extra_body = model, dict(extra_body or {})
        self.in_flight, self.timeout_s, self.retries, self.backoff_s = in_flight, timeout_s, retries, backoff_s
        official = host == "api.openai.com"
        self._max_tokens = max_tokens_field or ("max_completion_tokens" if official else "max_tokens")
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gate: asyncio.Semaphore | None = None
        self._lock = threading.Lock()
        self._random = random.Random()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run on the client's own event loop."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="openai-client", daemon=True).start()
                self._client = self._sdk.AsyncOpenAI(base_url=self._url, api_key=self._secret, max_retries=0)
                self._gate = asyncio.Semaphore(self.in_flight)
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Close the connections; new ones are opened when the client is used again."""
        with self._lock:
            loop, client, self._loop, self._client = self._loop, self._client, None, None
        if loop is not None:
            asyncio.run_coroutine_threadsafe(client.close(), loop).result(timeout=5)
            loop.call_soon_threadsafe(loop.stop)

    async def complete(self, prompt: str | Sequence[int], body: Mapping[str, Any], deadline: float | None) -> Any:
        """One text completion, as the SDK gives it; it has at least one choice. Runs on the client's loop.

        Raises:
            CallFailed: there is none.
            EngineError: the server refuses the key, or has no such model.
        """

        async def call(timeout_s: float) -> Any:
            raw = await self._client.completions.with_raw_response.create(
                model=self.model, prompt=prompt, timeout=timeout_s, extra_body=self.extra_body or None, **body
            )
            answer = raw.parse()
            if not getattr(answer, "choices", None):
                raise CallFailed("unavailable", "the server answered without a completion", again=True)
            return answer

        return await self._tried(call, deadline)

    async def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        body: Mapping[str, Any],
        *,
        max_tokens: int,
        deadline: float | None = None,
    ) -> ChatReply:
        """One answer to a chat. Runs on the client's loop.

        Raises:
            EngineError: the server refuses the key, or has no such model.
        """
        extra = {self._max_tokens: max_tokens, **self.extra_body}

        async def call(timeout_s: float) -> ChatReply:
            raw = await self._client.chat.completions.with_raw_response.create(
                model=self.model, messages=list(messages), timeout=timeout_s, extra_body=extra, **body
            )
            return _read_chat(raw.parse(), dict(raw.headers))

        try:
            return await self._tried(call, deadline)
        except CallFailed as failure:
            return ChatReply("", finish=failure.finish, error=str(failure))

    async def _tried(self, call: Callable[[float], Awaitable[T]], deadline: float | None) -> T:
        """A call, tried again where that may help, within the deadline."""
        assert self._gate is not None
        for attempt in range(self.retries + 1):
            async with self._gate:
                left = self.timeout_s if deadline is None else min(self.timeout_s, deadline - time.monotonic())
                if left <= 0:
                    raise CallFailed("timeout", "the deadline passed before the answer was complete")
                try:
                    return await asyncio.wait_for(call(left), left)
                except CallFailed as failed:
                    failure = failed
                except (TimeoutError, ValueError, self._sdk.OpenAIError) as error:
                    failure = _translated(self._sdk, error, self.model)
            pause = max(failure.wait_s, self.backoff_s * 2**attempt * self._random.uniform(0.5, 1.0))
            late = deadline is not None and time.monotonic() + pause >= deadline
            if not failure.again or attempt == self.retries or late:
                raise failure from None
            await asyncio.sleep(min(pause, MAX_WAIT_S))
        raise AssertionError("unreachable")


def _read_chat(answer: Any, headers: Mapping[str, str]) -> ChatReply:
    choices = getattr(answer, "choices", None)
    message = choices[0].message if choices else None
    if not choices or message is None:
        raise CallFailed("unavailable", "the server answered without a message", again=True)
    usage = getattr(answer, "usage", None)
    counts = (getattr(usage, "prompt_tokens", None) or 0, getattr(usage, "completion_tokens", None) or 0)
    if getattr(message, "refusal", None) or choices[0].finish_reason == "content_filter":
        return ChatReply("", *counts, "refused", headers, "the provider refused to answer")
    finish: Finish = "length" if choices[0].finish_reason == "length" else "stop"
    return ChatReply(message.content or "", *counts, finish, headers)


def _translated(sdk: Any, error: Exception, name: str) -> CallFailed:
    """The SDK's exception as ours, once.

    Raises:
        EngineError: no further call can succeed.
    """
    if isinstance(error, TimeoutError | sdk.APITimeoutError):
        return CallFailed("timeout", "the server did not answer in time", again=True)
    if isinstance(error, sdk.APIStatusError):
        return _status(error.status_code, getattr(error, "code", None), error.response.headers, name)
    if isinstance(error, sdk.APIConnectionError):
        return CallFailed("unavailable", "the server cannot be reached", again=True)
    return CallFailed("unavailable", "the server's answer cannot be read", again=True)


def _status(status: int, code: Any, headers: Mapping[str, str], name: str) -> CallFailed:
    if status in (401, 403):
        raise EngineError(f"the server does not accept the API key for {name} (HTTP {status}); check the key")
    if status == 404:
        raise EngineError(f"the server knows no model {name!r} or no such address (HTTP 404); check model and base_url")
    if code == "insufficient_quota":
        raise EngineError("the account has no quota left (HTTP 429); add credit and run again")
    if code in ("content_filter", "content_policy_violation"):
        return CallFailed("refused", f"the provider refused the request (HTTP {status})")
    if code == "context_length_exceeded" or status == 413:
        return CallFailed("input_too_long", f"the prompt does not fit in the model's context (HTTP {status})")
    if status == 429:
        return CallFailed("overloaded", "the server asks to slow down (HTTP 429)", again=True, wait_s=_wait(headers))
    if status in (503, 529):
        return CallFailed("overloaded", f"the server is overloaded (HTTP {status})", again=True, wait_s=_wait(headers))
    if status >= 500 or status in (408, 409):
        return CallFailed("unavailable", f"the server failed (HTTP {status})", again=True, wait_s=_wait(headers))
    return CallFailed("unavailable", f"the server does not take this request (HTTP {status})")


def _wait(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait (`retry-after-ms`, `retry-after`)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return min(MAX_WAIT_S, max(0.0, float(headers[name]) * unit))
        except (KeyError, ValueError):
            continue
    return 0.0
