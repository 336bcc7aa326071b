"""Any OpenAI-compatible server, of one of two kinds:

    chat          messages in, text out: OpenAI, Gemini, gateways. A plan is one `Free` step.
    completions   a text (or token ids) to continue: vLLM, SGLang, llama.cpp. Every step of a plan is a request with the
                  text so far; words are scored by the server's log-probabilities.

Judged text is sent as text, so special-token strings in it are split by a space, and the completion's notes say so.
Given the model's tokenizer, the engine sends token ids instead and splits nothing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

from guardreasoner.engines.base import Capabilities, until
from guardreasoner.engines.http import CallFailed, HttpClient, Served, key_from
from guardreasoner.engines.prompt_tokens import PromptTokenizer, tokenizer_from, tokenizer_of
from guardreasoner.engines.special_tokens import break_up, sendable
from guardreasoner.errors import ConfigError, PlanUnsupported
from guardreasoner.generation import (
    Chat,
    Choice,
    Completion,
    Finish,
    Free,
    Plan,
    Prompt,
    Segment,
    Text,
    pick,
    segments_of,
)

Api = Literal["auto", "chat", "completions"]
URL = "https://api.openai.com/v1"
CHAT_HOSTS = ("api.openai.com", "generativelanguage.googleapis.com", "openrouter.ai")
"""Providers with a chat API only."""
T = TypeVar("T")
TOP_LOGPROBS = 20
"""vLLM's default maximum."""


@dataclass
class _Written:
    """The completion so far, and its cost."""

    text: str = ""
    ids: list[int] | None = None
    """Prompt and text as token ids, if there is a tokenizer."""
    sent: str = ""
    """Prompt and text as they are sent, if there is none."""
    finish: Finish = "stop"
    prompt_tokens: int = 0
    sampled: int = 0
    choices: list[Mapping[str, float]] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)

    def completion(self, finish: Finish | None = None, error: str | None = None) -> Completion:
        counts = (self.prompt_tokens, self.sampled)
        return Completion(self.text, finish or self.finish, *counts, tuple(self.choices), self.notes, error)


class _TextAnswer(NamedTuple):
    """The answer of a completions server."""

    text: str
    finish: str
    logprobs: Mapping[str, Any]
    prompt_tokens: int
    completion_tokens: int


class OpenAIEngine(Served):
    """A model behind an OpenAI-compatible server. Safe to share between threads."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key: str = "OPENAI_API_KEY",
        api: Api = "auto",
        tokenizer: str | None = None,
        top_p: float = 0.95,
        temperature: bool = True,
        special_strings: Sequence[str] = (),
        context_tokens: int | None = None,
        name: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        max_tokens_field: str | None = None,
        **client: Any,
    ) -> None:
        """Args:
        base_url: where it listens, with `/v1`; None = OPENAI_BASE_URL, or OpenAI itself.
        key: environment variable that holds the API key; may be unset for servers of your own.
        api: chat, completions, or auto: chat for the providers known to have nothing else, completions otherwise.
        tokenizer: hub id or folder of the model's tokenizer; token ids are sent to completions servers then.
        top_p: nucleus of sampling, where temperature > 0.
        temperature: whether to send one; reasoning models take none.
        special_strings: of the model, besides those of the common families.
        context_tokens: of the model, if known.
        max_tokens_field: name of the budget in chat requests; None = `max_completion_tokens` at OpenAI,
            `max_tokens` elsewhere.
        client: see `HttpClient` (`timeout_s`, `retries`, `in_flight`, `backoff_s`).
        """
        if api not in ("auto", "chat", "completions"):
            raise ConfigError(f"api must be auto, chat or completions, not {api!r}")
        url = base_url or os.environ.get("OPENAI_BASE_URL") or URL
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            raise ConfigError("base_url is no address of a server, such as http://localhost:8000/v1") from None
        chat_only = any(host == h or host.endswith(f".{h}") for h in CHAT_HOSTS)
        secret = key_from(key, required=chat_only)
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        self.client = HttpClient(url, headers, model=model, key=key, **client)
        if api == "auto":
            api = "chat" if chat_only else "completions"
        self.api, self.model, self.name = api, model, name or model
        self.extra_body = dict(extra_body or {})
        self._max_tokens = max_tokens_field or ("max_completion_tokens" if host == "api.openai.com" else "max_tokens")
        self.top_p, self.temperature, self.special_strings = top_p, temperature, tuple(special_strings)
        forces = api == "completions"
        self.tokenizer = _tokenizer(tokenizer) if tokenizer and forces else None
        self.capabilities = Capabilities(force=forces, logprobs=forces, context_tokens=context_tokens)
        self._random = random.Random()

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """See `Engine.offsets`; without a tokenizer four characters are taken for a token."""
        return self.tokenizer.offsets(text) if self.tokenizer is not None else super().offsets(text)

    def _check(self, prompt: Prompt, plan: Plan) -> None:
        if len(plan) == 1 and isinstance(plan[0], Free):
            return
        if self.api == "chat":
            raise PlanUnsupported(f"{self.name} is a chat API: it cannot force text or score words; use mode full")
        if isinstance(prompt, Chat) and self.tokenizer is None:
            raise PlanUnsupported(
                f"to force text in a chat of {self.name} its template must be known: give the engine's option tokenizer"
            )

    async def _row(self, prompt: Prompt, plan: Plan, deadline: float | None, temperature: float) -> Completion:
        written = _Written()
        try:
            if self.api == "chat" or (isinstance(prompt, Chat) and self.tokenizer is None):
                return await self._chat_row(prompt, plan, deadline, temperature)
            self._start(written, prompt)
            for step in plan:
                if isinstance(step, Text):
                    self._append(written, step.text, ours=True)
                elif isinstance(step, Free):
                    await self._free(written, step, deadline, temperature)
                else:
                    await self._choose(written, step, deadline, temperature)
        except CallFailed as failed:
            return written.completion(failed.finish, str(failed))
        return written.completion()

    async def _chat_row(self, prompt: Prompt, plan: Plan, deadline: float | None, temperature: float) -> Completion:
        special = 0

        def text_of(segments: Sequence[Segment]) -> str:
            nonlocal special
            text, found = sendable(segments, self.special_strings)
            special += found
            return text

        if isinstance(prompt, Chat):
            messages = [{"role": t.role, "content": text_of(t.content)} for t in prompt.turns]
        else:
            messages = [{"role": "user", "content": text_of(prompt)}]
        (step,) = (s for s in plan if isinstance(s, Free))
        body = {"messages": messages, self._max_tokens: step.max_tokens} | self._sampling(temperature)
        if step.stop:
            body["stop"] = list(step.stop)[:4]  # OpenAI takes four at most
        answer = await self._post("/chat/completions", body, read_chat, deadline)
        notes = {"special_tokens": special} if special else {}
        return replace(answer, text=until(answer.text, step.stop), notes=notes)

    async def _post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T], deadline: float | None) -> T:
        return await self.client.post(path, {"model": self.model, **body, **self.extra_body}, read, deadline=deadline)

    async def _complete(self, written: _Written, body: Mapping[str, Any], deadline: float | None) -> _TextAnswer:
        """Continue the text so far."""
        return await self._post(
            "/completions",
            {"prompt": written.sent if written.ids is None else written.ids, **body},
            _read_text,
            deadline,
        )

    def _start(self, written: _Written, prompt: Prompt) -> None:
        if self.tokenizer is not None:
            encoded = self.tokenizer.encode(prompt)
            written.ids, special = list(encoded.ids), encoded.special
        else:
            written.sent, special = sendable(segments_of(prompt), self.special_strings)
        if special:
            written.notes["special_tokens"] = special

    def _append(self, written: _Written, text: str, *, ours: bool) -> None:
        """Text after the prompt; what the model wrote may quote judged text, so it forms no special token either."""
        written.text += text
        if self.tokenizer is not None and written.ids is not None:
            written.ids += self.tokenizer.continuation(text) if ours else self.tokenizer.judged(text)
        else:
            written.sent += text if ours else break_up(text, self.special_strings)[0]

    async def _free(self, written: _Written, step: Free, deadline: float | None, temperature: float) -> None:
        body = self._sampling(temperature) | {"max_tokens": step.max_tokens}
        if step.stop:
            body["stop"] = list(step.stop)
        answer = await self._complete(written, body, deadline)
        written.prompt_tokens = written.prompt_tokens or answer.prompt_tokens
        written.sampled += answer.completion_tokens
        self._append(written, until(answer.text, step.stop), ours=False)
        if answer.finish == "content_filter":
            raise CallFailed("refused", "the provider refused to answer")
        if answer.finish == "length":
            written.finish = "length"

    async def _choose(self, written: _Written, step: Choice, deadline: float | None, temperature: float) -> None:
        scores = await self._score(written, step.words, deadline)
        chosen = pick(step, scores, temperature, self._random)
        written.choices.append(scores)
        written.sampled += 1
        self._append(written, chosen, ours=True)

    async def _score(self, written: _Written, words: Sequence[str], deadline: float | None) -> dict[str, float]:
        """Log-probability of each word: as one of the likeliest next tokens, else token by token, echoed."""
        body = {"max_tokens": 1, "temperature": 0.0, "logprobs": TOP_LOGPROBS}
        answer = await self._complete(written, body, deadline)
        written.prompt_tokens = written.prompt_tokens or answer.prompt_tokens
        top = _top(answer.logprobs)
        if not top:
            raise CallFailed("unavailable", "the server gives no log-probabilities, so it cannot score words")
        scores = {word: top[word] for word in words if word in top}
        for word in words:
            if word not in scores:
                found = await self._echoed(written, word, deadline)
                if found is None:
                    found = min(top.values())
                    written.notes["bounded_logprobs"] = True
                scores[word] = found
        return {word: scores[word] for word in words}

    async def _echoed(self, written: _Written, word: str, deadline: float | None) -> float | None:
        """Log-probability of a whole word after the text so far; None = the server does not echo."""
        longer = _Written(sent=written.sent + word)
        skip = 0
        if self.tokenizer is not None and written.ids is not None:
            tail = self.tokenizer.word(word)
            longer.ids, skip = [*written.ids, *tail], len(written.ids)
        body = {"max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True}
        try:
            answer = await self._complete(longer, body, deadline)
        except CallFailed as failed:
            if failed.finish == "unavailable" and not failed.retryable:
                return None
            raise
        values, offsets = answer.logprobs.get("token_logprobs"), answer.logprobs.get("text_offset")
        if not values or not offsets or len(values) < 2:
            return None
        if longer.ids is not None:
            part = values[skip : len(longer.ids)] if len(values) > len(longer.ids) - 1 else []
        else:
            start = len(written.sent) + offsets[0]
            part = [v for v, at in zip(values, offsets, strict=False) if start <= at < start + len(word)]
        return float(sum(part)) if part and None not in part else None

    def _sampling(self, temperature: float) -> dict[str, Any]:
        if not self.temperature:
            return {}
        return {"temperature": temperature} | ({"top_p": self.top_p} if temperature > 0 else {})


def _tokenizer(tokenizer: str) -> PromptTokenizer:
    if Path(tokenizer).is_dir():
        return tokenizer_from(Path(tokenizer))
    from guardreasoner.engines.hf import load_tokenizer

    return tokenizer_of(load_tokenizer(tokenizer, None))


def read_chat(answer: Mapping[str, Any]) -> Completion:
    """A chat completion in OpenAI's form."""
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    counts = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    message = choice["message"]
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return Completion("", "refused", *counts, error="the provider refused to answer")
    finish: Finish = "length" if choice.get("finish_reason") == "length" else "stop"
    return Completion(message.get("content") or "", finish, *counts)


def _read_text(answer: Mapping[str, Any]) -> _TextAnswer:
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    counts = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    finish = str(choice.get("finish_reason") or "")
    return _TextAnswer(choice.get("text") or "", finish, choice.get("logprobs") or {}, *counts)


def _top(logprobs: Mapping[str, Any]) -> dict[str, float]:
    """The likeliest first tokens, in the form of a text or a chat completion (llama.cpp)."""
    if tops := logprobs.get("top_logprobs"):
        return {str(token): float(value) for token, value in dict(tops[0] or {}).items()}
    if content := logprobs.get("content"):
        rows = content[0].get("top_logprobs") or content[:1]
        return {str(r["token"]): float(r["logprob"]) for r in rows}
    return {}
