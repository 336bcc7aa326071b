"""Sequence classifiers: text in, a probability per label out; they write no text.

A completion has empty text and one entry in `choices`: label -> natural log of its probability.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from guardreasoner.engines.base import LATE, Capabilities
from guardreasoner.engines.hf import context_of, load_model, load_tokenizer
from guardreasoner.engines.prompt_tokens import Encoded, tokenizer_of
from guardreasoner.errors import PlanUnsupported, need
from guardreasoner.generation import Choice, Completion, Plan, Prompt


class ClassifierEngine:
    """A sequence-classification model on transformers."""

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        function: Literal["softmax", "sigmoid"] = "softmax",
        labels: Sequence[str] | None = None,
        device: str | None = None,
        dtype: str = "auto",
        max_batch: int = 16,
        context_tokens: int | None = None,
        name: str | None = None,
    ) -> None:
        """Args:
        model: hub id or folder; safetensors only, and no code of the repository is run.
        function: softmax = exactly one label holds; sigmoid = each label by itself.
        labels: names in the order of the outputs; None = the config's `id2label`.
        device: cpu, cuda, ...; None = cuda if there is one.
        dtype: auto (as stored), float32, bfloat16 or float16.
        max_batch: texts that run together.
        context_tokens: None = what the model's config says.
        """
        self.torch = need("torch", "hf")
        self.device = device or ("cuda" if self.torch.cuda.is_available() else "cpu")
        self.model = load_model(model, "sequence", revision=revision, dtype=dtype, device=self.device)
        tokenizer = load_tokenizer(model, revision)
        self.tokenizer = tokenizer_of(tokenizer)
        self._tail = _tail(tokenizer)
        config = self.model.config
        self.labels = tuple(labels or (config.id2label[i] for i in range(config.num_labels)))
        self.pad = config.pad_token_id
        self.max_batch = max_batch if self.pad is not None else 1  # without padding, one text at a time
        self.function, self.name = function, name or model
        self.capabilities = Capabilities(False, True, context_tokens or context_of(config), samples=False)

    def run(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        *,
        deadline: float | None = None,
        n: int = 1,
        temperature: float = 0.0,
    ) -> list[list[Completion]]:
        """See `Engine.run`. The plan is empty, or one `Choice` between labels."""
        if len(plan) > 1 or any(not isinstance(s, Choice) or set(s.words) - set(self.labels) for s in plan):
            raise PlanUnsupported(f"{self.name} is a classifier: it writes no text, it scores {', '.join(self.labels)}")
        encoded = [self.tokenizer.encode(prompt) for prompt in prompts]
        done = {i: c for i, row in enumerate(encoded) if (c := self._too_long(row)) is not None}
        waiting = sorted((i for i in range(len(encoded)) if i not in done), key=lambda i: len(encoded[i].ids))
        for start in range(0, len(waiting), self.max_batch):
            group = waiting[start : start + self.max_batch]
            if deadline is not None and time.monotonic() >= deadline:
                done |= dict.fromkeys(group, LATE)
            else:
                done |= dict(zip(group, self._score([encoded[i] for i in group]), strict=True))
        return [[done[i]] * n for i in range(len(prompts))]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return self.tokenizer.offsets(text)

    def close(self) -> None:
        """Give back the model's memory; the engine cannot run afterwards."""
        self.model = None

    def _too_long(self, row: Encoded) -> Completion | None:
        limit = self.capabilities.context_tokens
        if limit is None or len(row.ids) + len(self._tail) <= limit:
            return None
        return Completion(
            "", "input_too_long", len(row.ids), error=f"the text does not fit in the model's {limit} tokens"
        )

    def _score(self, rows: Sequence[Encoded]) -> list[Completion]:
        torch, texts = self.torch, [(*row.ids, *self._tail) for row in rows]
        width = max(map(len, texts))
        ids = torch.tensor([[*t, *[self.pad or 0] * (width - len(t))] for t in texts], device=self.model.device)
        mask = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t in texts], device=self.model.device)
        with torch.inference_mode():
            logits = self.model(input_ids=ids, attention_mask=mask).logits.float()
        to_log = torch.nn.functional.logsigmoid if self.function == "sigmoid" else lambda x: x.log_softmax(-1)
        scores: list[list[float]] = to_log(logits).cpu().tolist()
        return [
            Completion(
                "",
                "stop",
                prompt_tokens=len(text),
                choices=(dict(zip(self.labels, values, strict=True)),),
                notes={"special_tokens": row.special} if row.special else {},
            )
            for row, text, values in zip(rows, texts, scores, strict=True)
        ]


def _tail(tokenizer: Any) -> tuple[int, ...]:
    """What the tokenizer ends a text with ([SEP], </s>): classifiers were trained with it."""
    bare, full = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    at = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), len(full))
    return tuple(full[at + len(bare) :])
