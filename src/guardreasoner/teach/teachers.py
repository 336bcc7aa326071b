"""Teachers: chat servers over HTTP, engines in this process, or an object of your own.

A provider is a row: its address, how a request is written, how a reply is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from guardreasoner.engines.anthropic import read_message
from guardreasoner.engines.http import CallFailed, HttpClient, key_from, plain_url
from guardreasoner.engines.openai import read_chat
from guardreasoner.errors import EngineError
from guardreasoner.generation import Chat, Completion, Free, Judged, Scaffold, Turn
from guardreasoner.teach.config import SynthesizeConfig
from guardreasoner.teach.question import Messages


@dataclass(frozen=True, slots=True)
class TeacherReply:
    """A teacher's reply to one call."""

    text: str
    finish: str
    """`stop`, `length`, `refused`, or `invalid` (the server rejects this request)."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""

    @classmethod
    def of(cls, answer: Completion, headers: Mapping[str, str] | None = None) -> TeacherReply:
        """The reply that an engine's completion is."""
        finish = answer.finish if answer.finish in ("stop", "length", "refused") else "invalid"
        return cls(answer.text, finish, answer.prompt_tokens, answer.completion_tokens, headers or {})


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
        """Close connections."""
        ...


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider's chat API."""

    name: str
    base_url: str
    path: str
    key: str
    """Environment variable of the key."""
    headers: Callable[[str], dict[str, str]]
    body: Callable[[str, Messages, int, float], dict[str, Any]]
    read: Callable[[Mapping[str, Any]], Completion]


def _openai_body(model: str, messages: Messages, max_tokens: int, temperature: float) -> dict[str, Any]:
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": temperature}


def _anthropic_body(model: str, messages: Messages, max_tokens: int, temperature: float) -> dict[str, Any]:
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    rest = [m for m in messages if m["role"] != "system"]
    return {"model": model, "system": system, "messages": rest, "max_tokens": max_tokens, "temperature": temperature}


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
            read_chat,
        ),
        Provider(
            "anthropic",
            "https://api.anthropic.com/v1",
            "/messages",
            "ANTHROPIC_API_KEY",
            lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01"},
            _anthropic_body,
            read_message,
        ),
    )
}


class HttpTeacher:
    """A model behind the API of one of the `PROVIDERS`."""

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
        options: further fields of every request; None removes a field.
        concurrency: connections kept open.
        """
        self.name = model
        self._provider, self._options = provider, dict(options or {})
        variable = key or provider.key
        secret = key_from(variable, required=key is not None or base_url is None)
        self._client = HttpClient(
            plain_url(base_url or provider.base_url, "synthesize.base_url"),
            provider.headers(secret) if secret else {},
            model=model,
            key=variable,
            in_flight=concurrency,
        )

    async def ask(self, messages: Messages, *, max_tokens: int, temperature: float, timeout_s: float) -> TeacherReply:
        body = self._provider.body(self.name, messages, max_tokens, temperature) | self._options
        body = {k: v for k, v in body.items() if v is not None}
        try:
            found = await self._client.once(self._provider.path, body, self._provider.read, timeout_s=timeout_s)
        except CallFailed as failed:
            if failed.status in (400, 413, 422):
                return TeacherReply("", "invalid")
            raise
        return TeacherReply.of(found.value, found.headers)

    async def close(self) -> None:
        await self._client.aclose()


class EngineTeacher:
    """An engine in this process (`vllm`, `hf`, `onnx`); waiting questions run as one batch."""

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
        return [TeacherReply.of(completion) for (completion,) in done]

    async def close(self) -> None:
        self._engine.close()


def _turn(message: Mapping[str, str]) -> Turn:
    """The instruction is trusted text; the conversation and the teacher's earlier answer are not."""
    own = message["role"] == "system"
    return Turn(message["role"], (Scaffold(message["content"]) if own else Judged(message["content"]),))


def load_teacher(config: SynthesizeConfig) -> Teacher:
    """The teacher that a configuration names."""
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
