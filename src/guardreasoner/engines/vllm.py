"""vLLM in this process: large models on GPUs, many prompts at once.

A plan runs step by step for all rows together; earlier text is in vLLM's prefix cache. vLLM does its own batching and
knows no deadline, so the deadline is checked between groups of rows and between steps.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guardreasoner.engines.base import PASSED, Capabilities, until
from guardreasoner.engines.decoding import ids_of
from guardreasoner.engines.prompt_tokens import tokenizer_of
from guardreasoner.errors import EngineError, need, printable
from guardreasoner.generation import Choice, Completion, Finish, Free, Plan, Prompt, Text, pick

TOP_LOGPROBS = 20
"""The most that vLLM gives unless `max_logprobs` says otherwise."""


@dataclass
class _Request:
    """One completion under way."""

    ids: list[int]
    prompt_tokens: int
    seed: int
    special: int
    text: str = ""
    finish: Finish = "stop"
    error: str | None = None
    sampled: int = 0
    choices: list[Mapping[str, float]] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.finish in ("stop", "length")

    def completion(self) -> Completion:
        notes = {"special_tokens": self.special} if self.special else {}
        counts = (self.prompt_tokens, self.sampled)
        return Completion(self.text, self.finish, *counts, tuple(self.choices), notes, self.error)


class VllmEngine:
    """A model on vLLM."""

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        max_batch: int = 512,
        context_tokens: int | None = None,
        top_p: float = 0.95,
        seed: int = 0,
        show_special: bool = False,
        name: str | None = None,
        **engine: Any,
    ) -> None:
        """Args:
        model: hub id or folder; safetensors only, and no code of the repository is run.
        dtype: auto, bfloat16, float16 or float32.
        max_batch: rows handed to vLLM between two looks at the deadline.
        context_tokens: None = what the model's config says.
        top_p: nucleus of sampling, where temperature > 0.
        show_special: keep markers such as `<|channel|>` in the text.
        engine: further arguments of `vllm.LLM` (`tensor_parallel_size`, `gpu_memory_utilization`, ...).
        """
        self._vllm = need("vllm", "vllm")
        settings = {"load_format": "safetensors", "enable_prefix_caching": True, "seed": seed, **engine}
        if context_tokens:
            settings["max_model_len"] = context_tokens
        try:
            self.llm = self._vllm.LLM(model=model, revision=revision, dtype=dtype, trust_remote_code=False, **settings)
        except (ValueError, OSError, RuntimeError) as error:
            line = printable(str(error).strip().split("\n", 1)[0], 200)
            raise EngineError(f"vLLM cannot load {printable(model)}: {line}") from None
        self.tokenizer = tokenizer_of(self.llm.get_tokenizer(), show_special=show_special)
        self.name, self.max_batch, self.top_p, self.seed = name or model, max_batch, top_p, seed
        context = int(self.llm.llm_engine.model_config.max_model_len)
        self.capabilities = Capabilities(force=True, logprobs=True, context_tokens=context)

    def run(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        *,
        deadline: float | None = None,
        n: int = 1,
        temperature: float = 0.0,
    ) -> list[list[Completion]]:
        copies = n if temperature > 0 else 1
        rows = [self._row(prompt, plan, sample) for prompt in prompts for sample in range(copies)]
        for start in range(0, len(rows), self.max_batch):
            group = rows[start : start + self.max_batch]
            for k, step in enumerate(plan):
                live = [row for row in group if row.live]
                if deadline is not None and time.monotonic() >= deadline:
                    for row in live:
                        row.finish, row.error = "timeout", PASSED
                elif isinstance(step, Text):
                    for row in live:
                        self._append(row, step.text)
                elif isinstance(step, Choice):
                    self._choose(live, step, temperature)
                else:
                    self._free(live, step, temperature, reserve=self._reserve(plan[k + 1 :]))
        done = [row.completion() for row in rows]
        return [done[i * copies : (i + 1) * copies] * (n // copies) for i in range(len(prompts))]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return self.tokenizer.offsets(text)

    def close(self) -> None:
        """Let go of the model; the engine cannot run afterwards."""
        self.llm = None

    def _row(self, prompt: Prompt, plan: Plan, sample: int) -> _Request:
        encoded = self.tokenizer.encode(prompt)
        ids = list(encoded.ids)
        seed = zlib.crc32(np.array([self.seed, sample, *ids], np.int64).tobytes())
        row = _Request(ids, len(ids), seed, encoded.special)
        context = self.capabilities.context_tokens or 0
        if len(ids) + self._reserve(plan) > context:
            row.finish, row.error = "input_too_long", f"the prompt and the answer do not fit in {context} tokens"
        return row

    def _reserve(self, plan: Plan) -> int:
        """Tokens that these steps need whatever is sampled; vLLM wants room for one more after a scored word."""
        total = 1
        for step in plan:
            if isinstance(step, Text):
                total += len(self.tokenizer.continuation(step.text))
            elif isinstance(step, Choice):
                total += max(len(self.tokenizer.word(word)) for word in step.words)
            else:
                total += 1
        return total

    def _append(self, row: _Request, text: str) -> None:
        row.ids += self.tokenizer.continuation(text)
        row.text += text

    def _free(self, rows: Sequence[_Request], step: Free, temperature: float, *, reserve: int) -> None:
        context = self.capabilities.context_tokens or 0
        settings = [
            self._vllm.SamplingParams(
                max_tokens=max(1, min(step.max_tokens, context - reserve - len(row.ids))),
                temperature=temperature,
                top_p=self.top_p if temperature > 0 else 1.0,
                seed=row.seed,
                stop=list(step.stop),
                skip_special_tokens=False,
            )
            for row in rows
        ]
        for row, output in zip(rows, self._generate([row.ids for row in rows], settings), strict=True):
            made = output.outputs[0]
            sampled = list(made.token_ids)
            row.sampled += len(sampled)
            if made.finish_reason == "length":
                row.finish = "length"
            elif sampled and not isinstance(made.stop_reason, str):
                sampled.pop()  # the end token
            kept = until(self.tokenizer.decode(sampled), step.stop)
            row.ids += ids_of(self.tokenizer, sampled, kept)
            row.text += kept

    def _choose(self, rows: Sequence[_Request], step: Choice, temperature: float) -> None:
        words = {word: self.tokenizer.word(word) for word in step.words}
        first = self._vllm.SamplingParams(max_tokens=1, temperature=0.0, logprobs=TOP_LOGPROBS)
        scores: list[dict[str, float]] = [{} for _ in rows]
        for found, output in zip(scores, self._generate([row.ids for row in rows], [first] * len(rows)), strict=True):
            top = output.outputs[0].logprobs[0]
            found |= {w: float(top[i[0]].logprob) for w, i in words.items() if len(i) == 1 and i[0] in top}
        missing = [(k, word) for k, found in enumerate(scores) for word in words if word not in found]
        whole = self._vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1)
        texts = [[*rows[k].ids, *words[word]] for k, word in missing]
        for (k, word), output in zip(missing, self._generate(texts, [whole] * len(texts)), strict=True):
            tail = zip(words[word], output.prompt_logprobs[len(rows[k].ids) :], strict=True)
            scores[k][word] = float(sum(found[token].logprob for token, found in tail))
        for row, found in zip(rows, scores, strict=True):
            ordered = {word: found[word] for word in step.words}
            chosen = pick(step, ordered, temperature, random.Random(f"{row.seed} {len(row.ids)}"))
            row.choices.append(ordered)
            row.sampled += 1
            self._append(row, chosen)

    def _generate(self, ids: Sequence[Sequence[int]], settings: Sequence[Any]) -> list[Any]:
        if not ids:
            return []
        prompts = [{"prompt_token_ids": list(i)} for i in ids]
        try:
            return list(self.llm.generate(prompts, list(settings), use_tqdm=False))
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"vLLM failed while running the model ({type(error).__name__})") from None
