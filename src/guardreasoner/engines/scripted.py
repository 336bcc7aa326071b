"""An engine for tests and demonstrations: every answer is scripted.

    ScriptedEngine({"kill a process": "Answers: \\nRequest: unharmful\\n"}, default="...")

An answer is a text, a `Completion`, an exception to raise, or a function from the prompt's text to one of those. A
`Choice` step takes a word from the scripted text's answer block if there is one, and is decided by `scores` otherwise.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from guardreasoner.engines.base import Capabilities, OnText, until
from guardreasoner.generation import Choice, Completion, Free, Plan, Prompt, Text, pick, segments_of

Answer = str | Completion | Exception
Script = Answer | Callable[[str], Answer]


class ScriptedEngine:
    """Answers by substring of the prompt's text, first match wins."""

    def __init__(
        self,
        answers: Mapping[str, Script] | None = None,
        *,
        default: Script = "",
        scores: Mapping[str, float] | None = None,
        delay_s: float = 0.0,
        context_tokens: int | None = None,
        name: str = "scripted",
    ) -> None:
        """Args:
        answers: substring of the prompt's text -> script.
        default: the script where no substring matches.
        scores: substring of the prompt's text -> P(first word) of every `Choice`; 0.5 where none matches.
        delay_s: seconds every `run` takes.
        context_tokens: what `capabilities` reports; one token is one whitespace-separated word.
        """
        self.name = name
        self.answers = dict(answers or {})
        self.default = default
        self.scores = dict(scores or {})
        self.delay_s = delay_s
        plain = not any(callable(script) for script in (*self.answers.values(), default))
        self.capabilities = Capabilities(
            force=True, logprobs=True, context_tokens=context_tokens, keeps_deadline=plain, streams=True
        )
        self.calls: list[tuple[tuple[str, ...], Plan]] = []
        """Prompt texts and plan of every run, for tests."""
        self._random = random.Random(0)

    def run(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        *,
        deadline: float | None = None,
        n: int = 1,
        temperature: float = 0.0,
        on_text: OnText | None = None,
    ) -> list[list[Completion]]:
        texts = tuple("".join(s.text for s in segments_of(p)) for p in prompts)
        self.calls.append((texts, plan))
        if self.delay_s:
            left = math.inf if deadline is None else deadline - time.monotonic()
            time.sleep(max(0.0, min(self.delay_s, left)))
            if self.delay_s > left:
                return [[Completion("", "timeout", error="the deadline passed")] * n for _ in prompts]
        return [
            [
                self._complete(text, plan, temperature, None if j or on_text is None else partial(on_text, i))
                for j in range(n)
            ]
            for i, text in enumerate(texts)
        ]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [m.span() for m in re.finditer(r"\S+\s*", text)]

    def close(self) -> None:
        return None

    def _script(self, text: str) -> str | Completion:
        script = next((a for key, a in self.answers.items() if key in text), self.default)
        answer = script(text) if callable(script) else script
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _complete(self, text: str, plan: Plan, temperature: float, hear: Callable[[str], None] | None) -> Completion:
        answer = self._script(text)
        if isinstance(answer, Completion):
            return answer
        written, sampled, finish = "", 0, "stop"
        choices: list[Mapping[str, float]] = []
        p_first = next((p for key, p in self.scores.items() if key in text), 0.5)
        for step in plan:
            if isinstance(step, Free):
                words = re.findall(r"\S+\s*", until(answer, step.stop))
                finish = "length" if len(words) > step.max_tokens else finish
                sampled += min(len(words), step.max_tokens)
                for word in words[: step.max_tokens]:
                    written += word
                    if hear:
                        hear(written)
            elif isinstance(step, Text):
                written += step.text
            else:
                scores = self._choice(step, written, answer, p_first)
                choices.append(scores)
                sampled += 1
                written += pick(step, scores, temperature, self._random)
            if hear and not isinstance(step, Free):
                hear(written)
        done = Completion(written, "stop", len(text.split()), sampled, tuple(choices))
        return replace(done, finish="length") if finish == "length" else done

    def _choice(self, step: Choice, written: str, answer: str, p_first: float) -> Mapping[str, float]:
        key = written.rstrip(": ").rsplit("\n", 1)[-1].rsplit(" ", 1)[-1]
        said = re.findall(rf"{re.escape(key)}:\s*(\w+)", answer)
        if said and f" {said[-1]}" in step.words:
            p_first = 0.99 if f" {said[-1]}" == step.words[0] else 0.01
        rest = (1 - p_first) / max(1, len(step.words) - 1)
        return {w: math.log(max(p_first if i == 0 else rest, 1e-9)) for i, w in enumerate(step.words)}
