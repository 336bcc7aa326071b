"""Who answers a teacher's question: chat servers by HTTP, engines in this process, or an object of your own.

A provider is a row: where its page is, how a request is dressed, how a reply is read. aiohttp carries the calls because
it costs a tenth of the CPU of the SDKs (`bench/synthesize.py`), which on two cores decides how many fit in flight.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from guardreasoner.errors import ConfigError, EngineError, EngineOverloaded, EngineTimeout, need, printable
from guardreasoner.plans import Chat, Free, Judged, Scaffold, Turn
from guardreasoner.teach.config import SynthesizeConfig, plain_url
from guardreasoner.teach.pace import seconds
from guardreasoner.teach.question import Messages


@dataclass(frozen=True, slots=True)
class TeacherReply:
    """What came back from one call."""

    text: str
    finish: str
    """`stop`, `length`, `refused`, or `invalid` (the server does not take this request)."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""


class Teacher(Protocol):
    """Answers one question at a time; many are asked at once."""

    name: str

    async def ask(self, messages: Messages, *, max_tokens: int, temperature: float, timeout_s: float) -> TeacherReply:
        """The answer to a chat of messages.

        Raises:
            EngineError: no further call can succeed (`retryable` false), or this one may when tried again.
        """
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


class ServerBusy(EngineOverloaded):
    """The server is overloaded or cannot be reached; `wait_s` is what it asked for, `limited` a rate limit."""

    def __init__(self, message: str, wait_s: float | None = None, *, limited: bool = False) -> None:
        super().__init__(message)
        self.wait_s, self.limited = wait_s, limited


@dataclass(frozen=True, slots=True)
class Provider:
    """One wire."""

    name: str
    base_url: str
    path: str
    key: str
    """Environment variable of the key."""
    headers: Callable[[str], dict[str, str]]
    body: Callable[[str, Messages, int, float], dict[str, Any]]
    read: Callable[[Mapping[str, Any]], TeacherReply]


def _openai_body(model: str, messages: Messages, max_tokens: int, temperature: float) -> dict[str, Any]:
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": temperature}


def read_openai(reply: Mapping[str, Any]) -> TeacherReply:
    """A chat completion of OpenAI's wire."""
    choice, usage = reply["choices"][0], reply.get("usage") or {}
    message = choice["message"]
    declined = message.get("refusal") or choice.get("finish_reason") == "content_filter"
    finish = "refused" if declined else "length" if choice.get("finish_reason") == "length" else "stop"
    text = message.get("content") or ""
    return TeacherReply(text, finish, int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))


def _anthropic_body(model: str, messages: Messages, max_tokens: int, temperature: float) -> dict[str, Any]:
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    rest = [m for m in messages if m["role"] != "system"]
    return {"model": model, "system": system, "messages": rest, "max_tokens": max_tokens, "temperature": temperature}


def _read_anthropic(reply: Mapping[str, Any]) -> TeacherReply:
    text = "".join(b.get("text", "") for b in reply["content"] if b.get("type") == "text")
    finish = {"max_tokens": "length", "refusal": "refused"}.get(str(reply.get("stop_reason")), "stop")
    usage = reply.get("usage") or {}
    return TeacherReply(text, finish, int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0))


PROVIDERS: dict[str, Provider] = {
    p.name: p
    for p in (
        Provider(
            "openai",
            "https://api.openai.com/v1",
            "/chat/completions",
            "OPENAI_API_KEY",
            lambda key: {"authorization": f"Bearer {key}"},
            _openai_body,
            read_openai,
        ),
        Provider(
            "anthropic",
            "https://api.anthropic.com/v1",
            "/messages",
            "ANTHROPIC_API_KEY",
            lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01"},
            _anthropic_body,
            _read_anthropic,
        ),
    )
}


def key_of(provider: Provider, variable: str | None, base_url: str | None) -> str:
    """The key from the environment; servers of one's own may want none.

    Raises:
        ConfigError: the variable is not set.
    """
    name = variable or provider.key
    found = os.environ.get(name, "")
    if not found and (variable or base_url is None):
        raise ConfigError(f"the teacher {provider.name} needs a key: set the environment variable {name}")
    return found


class HttpTeacher:
    """A model behind one of the `PROVIDERS`' wires."""

    def __init__(
        self,
        provider: Provider,
        model: str,
        *,
        base_url: str | None = None,
        key: str | None = None,
        options: Mapping[str, Any] | None = None,
        concurrency: int = 64,
    ) -> None:
        """Args:
            base_url: None = the provider's own.
            key: name of the environment variable that holds the key.
            options: further fields of every request; None takes a field away.
            concurrency: connections kept open.

        Raises:
            ConfigError: key or address are missing or wrong.
            MissingDependency: aiohttp is not installed.
        """
        self.name = model
        self._provider = provider
        self._options = dict(options or {})
        self._url = plain_url(base_url or provider.base_url) + provider.path
        self._variable = key or provider.key
        secret = key_of(provider, key, base_url)
        self._headers = provider.headers(secret) if secret else {}
        self._http = need("aiohttp", "openai")
        self._concurrency = concurrency
        self._session: Any = None

    async def ask(self, messages: Messages, *, max_tokens: int, temperature: float, timeout_s: float) -> TeacherReply:
        if self._session is None:
            connector = self._http.TCPConnector(limit=self._concurrency)
            self._session = self._http.ClientSession(connector=connector, headers=self._headers)
        body = self._provider.body(self.name, messages, max_tokens, temperature) | self._options
        body = {k: v for k, v in body.items() if v is not None}
        try:
            async with asyncio.timeout(timeout_s):
                async with self._session.post(self._url, json=body, allow_redirects=False) as response:
                    content = await response.read()
                    headers = {k.lower(): v for k, v in response.headers.items()}
                    status = response.status
        except TimeoutError:
            raise EngineTimeout(f"the teacher did not answer within {timeout_s:g} s") from None
        except (self._http.ClientError, OSError) as error:
            raise ServerBusy(f"the teacher's server cannot be reached ({type(error).__name__})") from None
        return self._read(status, headers, content)

    def _read(self, status: int, headers: Mapping[str, str], content: bytes) -> TeacherReply:
        if status == 200:
            return _reply(self._provider, headers, content)
        if status in (408, 409, 425, 429) or status >= 500:
            raise ServerBusy(
                f"the teacher's server is overloaded (HTTP {status})", _asked_wait(headers), limited=status == 429
            )
        if status in (400, 413, 422):
            return TeacherReply("", "invalid", headers=headers)
        if status in (401, 403):
            raise EngineError(
                f"the teacher's server refused the key in {self._variable} (HTTP {status}): "
                "renew it and run the same command again"
            )
        raise EngineError(
            f"the teacher's server has no {printable(self.name)} at {self._url} (HTTP {status}): check model, base_url"
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _reply(provider: Provider, headers: Mapping[str, str], content: bytes) -> TeacherReply:
    import json
    from dataclasses import replace

    try:
        return replace(provider.read(json.loads(content)), headers=headers)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise ServerBusy("the teacher's server sent a reply of unknown form") from None


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    if "retry-after-ms" in headers:
        found = seconds(headers["retry-after-ms"] + "ms")
        if found is not None:
            return found
    return seconds(headers.get("retry-after", ""))


class EngineTeacher:
    """An engine of this process (`vllm`, `hf`, `onnx`): questions that wait together run as one batch."""

    def __init__(self, engine: Any, *, batch: int = 64) -> None:
        self.name = str(engine.name)
        self._engine = engine
        self._batch = batch
        self._waiting: list[tuple[Messages, int, float, asyncio.Future[TeacherReply]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def ask(self, messages: Messages, *, max_tokens: int, temperature: float, timeout_s: float) -> TeacherReply:
        answer: asyncio.Future[TeacherReply] = asyncio.get_running_loop().create_future()
        self._waiting.append((messages, max_tokens, temperature, answer))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)
            taken, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
            questions, limits, temperatures, answers = zip(*taken, strict=True)
            try:
                replies = await asyncio.to_thread(self._complete, questions, max(limits), temperatures[0])
            except Exception as error:  # whatever an engine raises belongs to those who wait for it
                known = isinstance(error, EngineError)
                failure = error if known else EngineError(f"the teacher's engine failed ({type(error).__name__})")
                for answer in answers:
                    if not answer.cancelled():
                        answer.set_exception(failure)
                continue
            for answer, reply in zip(answers, replies, strict=True):
                if not answer.cancelled():
                    answer.set_result(reply)

    def _complete(self, questions: Sequence[Messages], max_tokens: int, temperature: float) -> list[TeacherReply]:
        prompts = [Chat(tuple(_turn(message) for message in question)) for question in questions]
        done = self._engine.run(prompts, [Free(max_tokens)], temperature=temperature)
        finish = {"stop": "stop", "length": "length", "refused": "refused"}
        return [
            TeacherReply(c.text, finish.get(c.finish, "invalid"), c.prompt_tokens, c.completion_tokens) for (c,) in done
        ]

    async def close(self) -> None:
        self._engine.close()


def _turn(message: Mapping[str, str]) -> Turn:
    """The instruction is ours; the conversation and the teacher's own earlier answer are not."""
    own = message["role"] == "system"
    return Turn(message["role"], (Scaffold(message["content"]) if own else Judged(message["content"]),))


def load_teacher(config: SynthesizeConfig) -> Teacher:
    """The teacher that a configuration names.

    Raises:
        ConfigError: key or address are missing or wrong.
        MissingDependency: its extra is not installed.
        EngineError: local weights cannot be loaded.
    """
    provider = config.teacher.removesuffix("-batch")
    if provider in PROVIDERS:
        return HttpTeacher(
            PROVIDERS[provider],
            config.model,
            base_url=config.base_url,
            key=config.key,
            options=config.options,
            concurrency=config.concurrency,
        )
    from guardreasoner.engines.load import load_engine

    return EngineTeacher(load_engine(config.teacher, model=config.model, **config.options))
