"""Any OpenAI-compatible server, through the official SDK.

Two kinds of server, and what they can do:

    chat          messages in, text out: OpenAI, Gemini, gateways. A plan is one `Free` step.
    completions   a text (or token ids) to go on with: vLLM, SGLang, llama.cpp. Every step of a plan, by asking again
                  with the text so far; words are scored by the server's log-probabilities.

Judged text reaches a server as text, so special-token strings in it are broken up by a blank and the completion says
so; where the model's tokenizer is given, token ids are sent instead and nothing needs breaking.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from guardreasoner.engines.base import Capabilities
from guardreasoner.engines.encoding import Encoder, clean, encoder_from, encoder_of
from guardreasoner.engines.openai_client import CallFailed, ChatReply, OpenAIClient
from guardreasoner.engines.special import break_up
from guardreasoner.errors import ConfigError, PlanUnsupported
from guardreasoner.plans import (
    Chat,
    Choice,
    Completion,
    Finish,
    Free,
    Judged,
    Plan,
    Prompt,
    Segment,
    Text,
    pick,
    segments_of,
)

Api = Literal["auto", "chat", "completions"]
TOP_LOGPROBS = 20
"""The most that vLLM gives unless told otherwise."""


@dataclass
class _Written:
    """What stands after the prompt, and what it cost."""

    text: str = ""
    ids: list[int] | None = None
    """Prompt and text in token ids, where a tokenizer is at hand."""
    sent: str = ""
    """Prompt and text as they are sent, where there is none."""
    finish: Finish = "stop"
    prompt_tokens: int = 0
    sampled: int = 0
    choices: list[Mapping[str, float]] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)

    def completion(self, finish: Finish | None = None, error: str | None = None) -> Completion:
        return Completion(
            self.text,
            finish or self.finish,
            self.prompt_tokens,
            self.sampled,
            tuple(self.choices),
            self.notes,
            error,
        )


class OpenAIEngine:
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
        **client: Any,
    ) -> None:
        """Args:
            model: the server's name of the model.
            base_url: where it listens, with `/v1`; None = OPENAI_BASE_URL, or OpenAI itself.
            key: environment variable that holds the API key; may be unset for servers of your own.
            api: chat, completions, or auto: chat for the providers known to have nothing else, completions otherwise.
            tokenizer: hub id or folder of the model's tokenizer; token ids are sent to completions servers then.
            top_p: nucleus of sampling, where temperature > 0.
            temperature: whether to send one; reasoning models take none.
            special_strings: of the model, besides those of the common families.
            context_tokens: of the model, if known.
            name: shown in verdicts; None = the model's name.
            client: `in_flight` (calls at a time), `timeout_s` (of one attempt), `retries` (attempts after the first, of
                errors that may pass), `backoff_s` (first wait between attempts; doubles, with jitter), `extra_body`
                (further fields of every request), `max_tokens_field` (name of the budget in chat requests; None =
                `max_completion_tokens` at OpenAI, `max_tokens` elsewhere).

        Raises:
            MissingDependency: the SDK is not installed.
            ConfigError: there is no key, or no such api.
        """
        if api not in ("auto", "chat", "completions"):
            raise ConfigError(f"api must be auto, chat or completions, not {api!r}")
        self.client = OpenAIClient(model, base_url=base_url, key=key, **client)
        if api == "auto":
            api = "chat" if self.client.chat_only else "completions"
        self.api, self.name = api, name or model
        self.top_p, self.temperature, self.special_strings = top_p, temperature, tuple(special_strings)
        forces = api == "completions"
        self.encoder = _encoder(tokenizer) if tokenizer and forces else None
        self.capabilities = Capabilities(force=forces, logprobs=forces, context_tokens=context_tokens)
        self._random = random.Random()

    def run(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        *,
        deadline: float | None = None,
        n: int = 1,
        temperature: float = 0.0,
    ) -> list[list[Completion]]:
        """See `Engine.run`.

        Raises:
            PlanUnsupported: a chat server was given anything but one `Free` step.
            EngineError: the server refuses the key, or has no such model.
        """
        for prompt in prompts:
            self._check(prompt, plan)

        async def every() -> list[Completion]:
            rows = [self._row(prompt, plan, deadline, temperature) for prompt in prompts for _ in range(n)]
            return list(await asyncio.gather(*rows))

        done = self.client.submit(every()).result()
        return [done[i * n : (i + 1) * n] for i in range(len(prompts))]

    async def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        deadline: float | None = None,
    ) -> ChatReply:
        """One answer to a chat of messages, from any event loop; failures that may pass are tried again.

        Raises:
            EngineError: the server refuses the key, or has no such model.
        """
        body = self._sampling(temperature) | _stops(stop)
        call = self.client.chat(messages, body, max_tokens=max_tokens, deadline=deadline)
        return await asyncio.wrap_future(self.client.submit(call))

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """See `Engine.offsets`; without a tokenizer four characters are taken for a token."""
        if self.encoder is not None:
            return self.encoder.offsets(text)
        return [(i, min(i + 4, len(text))) for i in range(0, len(text), 4)]

    def close(self) -> None:
        """Close the connections; new ones are opened when the engine is used again."""
        self.client.close()

    def _check(self, prompt: Prompt, plan: Plan) -> None:
        if len(plan) == 1 and isinstance(plan[0], Free):
            return
        if self.api == "chat":
            raise PlanUnsupported(f"{self.name} is a chat API: it cannot force text or score words; use mode full")
        if isinstance(prompt, Chat) and self.encoder is None:
            raise PlanUnsupported(
                f"to force text in a chat of {self.name} its template must be known: give the engine's option tokenizer"
            )

    async def _row(self, prompt: Prompt, plan: Plan, deadline: float | None, temperature: float) -> Completion:
        written = _Written()
        try:
            if self.api == "chat" or (isinstance(prompt, Chat) and self.encoder is None):
                return await self._chat_row(prompt, plan, deadline, temperature)
            self._start(written, prompt)
            for step in plan:
                if isinstance(step, Text):
                    self._append(written, step.text, ours=True)
                elif isinstance(step, Free):
                    await self._free(written, step, deadline, temperature)
                else:
                    await self._choose(written, step, deadline, temperature)
        except CallFailed as failure:
            return written.completion(failure.finish, str(failure))
        return written.completion()

    async def _chat_row(self, prompt: Prompt, plan: Plan, deadline: float | None, temperature: float) -> Completion:
        special = 0

        def text_of(segments: Sequence[Segment]) -> str:
            nonlocal special
            text, found = self._text(segments)
            special += found
            return text

        if isinstance(prompt, Chat):
            messages = [{"role": t.role, "content": text_of(t.content)} for t in prompt.turns]
        else:
            messages = [{"role": "user", "content": text_of(prompt)}]
        (step,) = (s for s in plan if isinstance(s, Free))
        body = self._sampling(temperature) | _stops(step.stop)
        reply = await self.client.chat(messages, body, max_tokens=step.max_tokens, deadline=deadline)
        text = _until(reply.text, step.stop)
        notes = {"special_tokens": special} if special else {}
        counts = (reply.prompt_tokens, reply.completion_tokens)
        return Completion(text, reply.finish, *counts, notes=notes, error=reply.error)

    def _text(self, segments: Sequence[Segment]) -> tuple[str, int]:
        """Segments as the text that is sent, and how many special-token strings were broken up in judged text."""
        parts, found = [], 0
        for segment in segments:
            text = segment.text
            if isinstance(segment, Judged):
                text, count = break_up(clean(text), self.special_strings)
                found += count
            parts.append(text)
        return "".join(parts), found

    def _start(self, written: _Written, prompt: Prompt) -> None:
        if self.encoder is not None:
            encoded = self.encoder.encode(prompt)
            written.ids, special = list(encoded.ids), encoded.special
        else:
            written.sent, special = self._text(segments_of(prompt))
        if special:
            written.notes["special_tokens"] = special

    def _append(self, written: _Written, text: str, *, ours: bool) -> None:
        """Text after the prompt; what the model wrote may quote judged text, so it forms no special token either."""
        written.text += text
        if self.encoder is not None and written.ids is not None:
            written.ids += self.encoder.continuation(text) if ours else self.encoder.judged(text)
        else:
            written.sent += text if ours else break_up(text, self.special_strings)[0]

    async def _free(self, written: _Written, step: Free, deadline: float | None, temperature: float) -> None:
        body = self._sampling(temperature) | {"max_tokens": step.max_tokens}
        if step.stop:
            body["stop"] = list(step.stop)
        answer = await self.client.complete(_sent(written), body, deadline)
        choice = answer.choices[0]
        self._count(written, answer)
        written.sampled += getattr(answer.usage, "completion_tokens", None) or 0
        self._append(written, _until(choice.text or "", step.stop), ours=False)
        if choice.finish_reason == "content_filter":
            raise CallFailed("refused", "the provider refused to answer")
        if choice.finish_reason == "length":
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
        answer = await self.client.complete(_sent(written), body, deadline)
        self._count(written, answer)
        top = _top(answer.choices[0])
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
        if self.encoder is not None and written.ids is not None:
            tail = self.encoder.word(word)
            longer.ids, skip = [*written.ids, *tail], len(written.ids)
        body = {"max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True}
        try:
            answer = await self.client.complete(_sent(longer), body, deadline)
        except CallFailed as failure:
            if failure.finish == "unavailable" and not failure.again:
                return None
            raise
        found = answer.choices[0].logprobs
        values, offsets = getattr(found, "token_logprobs", None), getattr(found, "text_offset", None)
        if not values or not offsets or len(values) < 2:
            return None
        if longer.ids is not None:
            part = values[skip : len(longer.ids)] if len(values) > len(longer.ids) - 1 else []
        else:
            start = len(written.sent) + offsets[0]
            part = [v for v, at in zip(values, offsets, strict=False) if start <= at < start + len(word)]
        return float(sum(part)) if part and None not in part else None

    def _count(self, written: _Written, answer: Any) -> None:
        if not written.prompt_tokens:
            written.prompt_tokens = getattr(answer.usage, "prompt_tokens", None) or 0

    def _sampling(self, temperature: float) -> dict[str, Any]:
        if not self.temperature:
            return {}
        return {"temperature": temperature} | ({"top_p": self.top_p} if temperature > 0 else {})


def _encoder(tokenizer: str) -> Encoder:
    if Path(tokenizer).is_dir():
        return encoder_from(Path(tokenizer))
    from guardreasoner.engines.hf import load_tokenizer

    return encoder_of(load_tokenizer(tokenizer, None))


def _sent(written: _Written) -> str | list[int]:
    return written.ids if written.ids is not None else written.sent


def _until(text: str, stops: Sequence[str]) -> str:
    """What stands before the first stop string: some servers take only a few of them, or leave them in."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _stops(stop: Sequence[str]) -> dict[str, Any]:
    """Stop strings of a chat; OpenAI takes four at most."""
    return {"stop": list(stop)[:4]} if stop else {}


def _top(choice: Any) -> dict[str, float]:
    """The likeliest first tokens by their text; the form of a chat's log-probabilities is read too (llama.cpp)."""
    found = choice.logprobs
    tops = getattr(found, "top_logprobs", None)
    if tops:
        return {str(token): float(value) for token, value in dict(tops[0] or {}).items()}
    content = getattr(found, "content", None)
    if content:
        first = content[0] if isinstance(content[0], dict) else dict(content[0])
        rows = first.get("top_logprobs") or [first]
        return {str(r["token"]): float(r["logprob"]) for r in map(dict, rows)}
    return {}
