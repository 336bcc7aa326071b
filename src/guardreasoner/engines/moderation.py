"""A moderation endpoint (`POST /v1/moderations`), OpenAI's or any server that speaks it.

The text of a completion is one entry of the endpoint's `results` as JSON; format `moderation` reads it. Several texts
go in one request.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from guardreasoner.engines.base import Capabilities, unanswered
from guardreasoner.engines.http import CallFailed, HttpClient, Served, key_from, together
from guardreasoner.engines.prompt_tokens import clean
from guardreasoner.errors import PlanUnsupported
from guardreasoner.generation import Completion, Plan, Prompt, segments_of

URL = "https://api.openai.com/v1"


class ModerationEngine(Served):
    """One moderation model of one server."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key: str = "OPENAI_API_KEY",
        batch: int = 16,
        name: str | None = None,
        **client: Any,
    ) -> None:
        """Args:
        model: the server's model name; empty = the server's default.
        base_url: in place of OpenAI's, with its `/v1`.
        key: the environment variable that holds the API key.
        batch: texts in one request.
        """
        root = (base_url or os.environ.get("OPENAI_BASE_URL") or URL).rstrip("/")
        headers = {"authorization": f"Bearer {key_from(key)}"}
        self.client = HttpClient(root, headers, model=model or "moderation", key=key, **client)
        self.model, self.batch, self.name = model, batch, name or model or "moderation"
        self.capabilities = Capabilities(force=False, logprobs=False, context_tokens=None, samples=False)

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
        if plan:
            raise PlanUnsupported(f"{self.name} is a moderation endpoint: it writes no text")
        texts = [clean("".join(s.text for s in segments_of(p))) for p in prompts]
        parts = [texts[i : i + self.batch] for i in range(0, len(texts), self.batch)]
        done = self.client.run([self._ask(part, deadline) for part in parts])
        return [[completion] * n for part in done for completion in part]

    async def _ask(self, texts: Sequence[str], deadline: float | None) -> list[Completion]:
        body: dict[str, Any] = {"input": list(texts)} | ({"model": self.model} if self.model else {})

        def read(answer: Mapping[str, Any]) -> list[Completion]:
            if len(answer["results"]) != len(texts):
                raise ValueError("the server did not answer each text")
            return [Completion(json.dumps(r if isinstance(r, Mapping) else None)) for r in answer["results"]]

        try:
            return await self.client.post("/moderations", body, read, deadline=deadline)
        except CallFailed as failed:
            if failed.retryable or len(texts) == 1:
                return [unanswered(failed)] * len(texts)
        # one of them is not taken
        return [one for (one,) in await together([self._ask([text], deadline) for text in texts])]
