"""Claude models through Anthropic's Messages API (`POST /v1/messages`, version 2023-06-01).

The API cannot force text and gives no log-probabilities, so a plan is one `Free` step. A refusal by the provider
(`stop_reason: refusal`) ends a completion with finish `refused`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from guardreasoner.engines.base import Capabilities, unanswered
from guardreasoner.engines.http import CallFailed, HttpClient, Served, key_from
from guardreasoner.errors import PlanUnsupported
from guardreasoner.generation import Chat, Completion, Finish, Free, Plan, Prompt, segments_of

VERSION = "2023-06-01"
URL = "https://api.anthropic.com"


class AnthropicEngine(Served):
    """A Claude model."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key: str = "ANTHROPIC_API_KEY",
        temperature: bool = True,
        name: str | None = None,
        **client: Any,
    ) -> None:
        """Args:
        base_url: in place of Anthropic's.
        key: the environment variable that holds the API key.
        temperature: whether to send one; some newer models take none.
        client: see `HttpClient` (`timeout_s`, `retries`, `in_flight`, `backoff_s`).
        """
        root = (base_url or os.environ.get("ANTHROPIC_BASE_URL") or URL).rstrip("/").removesuffix("/v1")
        headers = {"x-api-key": key_from(key), "anthropic-version": VERSION}
        self.client = HttpClient(root, headers, model=model, key=key, **client)
        self.model, self.temperature, self.name = model, temperature, name or model
        self.capabilities = Capabilities(force=False, logprobs=False, context_tokens=None)

    def _check(self, prompt: Prompt, plan: Plan) -> None:
        if len(plan) != 1 or not isinstance(plan[0], Free):
            raise PlanUnsupported(f"{self.name} is a chat API: it cannot force text or score words")

    async def _row(self, prompt: Prompt, plan: Plan, deadline: float | None, temperature: float) -> Completion:
        (step,) = (s for s in plan if isinstance(s, Free))
        body = self._body(prompt, step, temperature)
        try:
            return await self.client.post("/v1/messages", body, read_message, deadline=deadline)
        except CallFailed as failed:
            return unanswered(failed)

    def _body(self, prompt: Prompt, step: Free, temperature: float) -> dict[str, Any]:
        turns = prompt.turns if isinstance(prompt, Chat) else ()
        texts = [(t.role, "".join(s.text for s in t.content)) for t in turns]
        if not texts:
            texts = [("user", "".join(s.text for s in segments_of(prompt)))]
        system = "\n\n".join(text for role, text in texts if role == "system")
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": step.max_tokens,
            "messages": [{"role": role, "content": text} for role, text in texts if role != "system"],
        }
        if system:
            body["system"] = system
        if self.temperature:
            body["temperature"] = temperature
        if stops := [s for s in step.stop if s.strip()]:  # the API refuses stop sequences of blanks only
            body["stop_sequences"] = stops
        return body


def read_message(answer: Mapping[str, Any]) -> Completion:
    """A message in Anthropic's form."""
    usage = answer.get("usage") or {}
    counts = (int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0))
    if answer.get("stop_reason") == "refusal":
        return Completion("", "refused", *counts, error="the provider refused to answer")
    text = "".join(str(b.get("text") or "") for b in answer["content"] if b.get("type") == "text")
    finish: Finish = "length" if answer.get("stop_reason") == "max_tokens" else "stop"
    return Completion(text, finish, *counts)
