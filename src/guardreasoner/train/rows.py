"""Examples become token rows: the same encoding in training as in use, and a label only where the model is to learn.

A row is the prompt, the reasoning, and the answer block in the pieces in which engines force it. Unannotated verdicts
are never learned: a random word takes their place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from guardreasoner.data.mix import draw
from guardreasoner.engines.prompt_tokens import PromptTokenizer, tokenizer_of
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.formats.base import request_of
from guardreasoner.generation import Choice
from guardreasoner.types import TASKS, Example, Exchange, Task

NO_LABEL = -100
NUMBER = {task: number for number, task in enumerate(TASKS, 1)}
"""The mark of a task's verdict tokens in `TokenRow.verdict`; 0 = other tokens."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One training sequence; lists of one length."""

    input_ids: list[int]
    labels: list[int]
    verdict: list[int]
    """0, or the number of the task whose verdict this token begins."""
    shortened: bool = False
    """Judged text was cut in the middle to fit."""


@dataclass(frozen=True)
class RowMaker:
    """How examples become rows; one per training run."""

    tokenizer: Any
    """A fast tokenizer of transformers."""
    wire: wire_format.Wire
    max_tokens: int
    """Longest row."""
    judged_tokens: int | None = None
    """Most tokens of the request, and of the reply; None = as many as fit."""
    mask_unannotated: bool = True
    """No loss on verdicts without gold; otherwise the word `None` is learned as part of the frame, as in the official
    data."""
    seed: int = 0

    @cached_property
    def prompt_tokenizer(self) -> PromptTokenizer:
        """The tokenizer as engines use it."""
        return tokenizer_of(self.tokenizer)

    def prompt(self, exchange: Exchange, look: str = "") -> list[int]:
        """The prompt as engines encode it."""
        return list(self.prompt_tokenizer.encode(wire_format.render(exchange, self.wire, look)).ids)

    def fit(self, exchange: Exchange, room: int, look: str = "") -> tuple[Exchange, list[int], bool]:
        """The exchange, its prompt in at most `room` tokens, and whether judged text was cut for that."""
        cut = exchange
        if self.judged_tokens is not None:
            cut = self._shorten(cut, self.judged_tokens)
        ids = self.prompt(cut, look)
        if len(ids) > room:
            frame = len(self.prompt(replace(cut, prompt="", response=cut.response and "", context=()), look))
            texts, whole = 2 if cut.response else 1, cut
            left = room - frame
            for _ in range(4):  # tokens grow together differently at the seams: a second try may be needed
                cut = self._shorten(whole, max(0, left) // texts)
                ids = self.prompt(cut, look)
                if len(ids) <= room or left <= 0:
                    break
                left -= len(ids) - room + texts
        return cut, ids, cut is not exchange

    def row(self, example: Example, reasoning: str = "", block: str | None = None, look: str = "") -> TokenRow | None:
        """The row of an example, with its reasoning or on labels alone; None where it cannot fit.

        Args:
            example: what is judged, and its gold.
            reasoning: empty = labels alone.
            block: what follows the reasoning of a published trace, learned unchanged; None = our answer block.
            look: the first look in the prompt (`formats.guardreasoner.first_look`).
        """
        ids, labels, verdict = self._answer(example, reasoning, block)
        _, prompt, shortened = self.fit(example.exchange, self.max_tokens - len(ids), look)
        if len(prompt) + len(ids) > self.max_tokens:
            return None
        blank = len(prompt)
        return TokenRow(prompt + ids, [NO_LABEL] * blank + labels, [0] * blank + verdict, shortened)

    def completion(self, text: str) -> list[int]:
        """An answer that a model wrote, with the end token."""
        return [*self._encode(text), self.tokenizer.eos_token_id]

    def _answer(self, example: Example, reasoning: str, block: str | None) -> tuple[list[int], list[int], list[int]]:
        """Ids, labels and verdict marks of an answer, in the pieces in which engines write it."""
        into: tuple[list[int], list[int], list[int]] = ([], [], [])
        ids, labels, verdict = into

        def write(text: str, learn: bool = True) -> None:
            piece = self._encode(text)
            ids.extend(piece)
            labels.extend(piece if learn else [NO_LABEL] * len(piece))
            verdict.extend([0] * len(piece))

        if block is None:
            reasoning += "" if not reasoning or reasoning.endswith("\n") else "\n"
            tail = wire_format.answer(reasoning, example.gold)[len(reasoning) :]
        else:
            tail = block
        concluded = set[Task]()
        for text, task in wire_format.conclusions_apart(reasoning):
            write(text)
            if task and text.split()[-1] == example.gold[task]:
                verdict[-len(self._encode(text))] = NUMBER[task]  # the words of all endings differ in their first token
                concluded.add(task)
        for text, task in wire_format.verdicts_apart(tail):
            if task is None:
                write(text)
                continue
            asked = task in example.exchange.tasks
            if example.gold[task] or (asked and self.mask_unannotated and block is None):
                self._verdict(example, task, into, said=task in concluded)
            else:  # the word None, or what a teacher wrote where there was nothing to judge
                write(text, not (self.mask_unannotated and (asked or text != " None")))
        end = self.tokenizer.eos_token_id
        return [*ids, end], [*labels, end], [*verdict, 0]

    def _verdict(
        self, example: Example, task: Task, into: tuple[list[int], list[int], list[int]], *, said: bool
    ) -> None:
        """A verdict word of the block; where the reasoning has `said` it, it is a copy and no verdict."""
        gold, exchange = example.gold[task], example.exchange
        ids, labels, verdict = into
        row = TASKS[task]
        lot = row.positive if draw(self.seed, "verdict", task.value, exchange.id) < 0.5 else row.negative
        shown = self._encode(f" {gold or lot}")
        ids.extend(shown)
        labels.extend(shown if gold else [NO_LABEL] * len(shown))
        marked = gold is not None and not said
        verdict.extend([NUMBER[task] if marked and i == self.deciding(task) else 0 for i in range(len(shown))])

    def deciding(self, task: Task) -> int:
        """Index of the first token on which a task's two verdict words differ."""
        first, second = self.verdict_ids(task)
        return next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)

    def verdict_ids(self, task: Task) -> tuple[list[int], list[int]]:
        """Tokens of the positive and of the negative verdict word, as engines choose between them."""
        choice = next(s for s in wire_format.plan("instant", (task,)) if isinstance(s, Choice))
        return self._encode(choice.words[0]), self._encode(choice.words[1])

    def _encode(self, text: str) -> list[int]:
        return list(self.prompt_tokenizer.continuation(text))

    def _shorten(self, exchange: Exchange, tokens: int) -> Exchange:
        asked = request_of(exchange)
        prompt = middle_out(asked, tokens, self.prompt_tokenizer)
        response = None if exchange.response is None else middle_out(exchange.response, tokens, self.prompt_tokenizer)
        if prompt == asked and response == exchange.response:
            return exchange
        return replace(exchange, prompt=prompt, response=response, context=())


def middle_out(text: str, tokens: int, tokenizer: PromptTokenizer) -> str:
    """A text of at most about `tokens` tokens: its beginning and its end."""
    if len(text) <= tokens:  # no token is shorter than a character
        return text
    if tokens <= 1:
        return ""
    spans = tokenizer.offsets(text)
    if len(spans) <= tokens:
        return text
    head, tail = tokens // 2, tokens - tokens // 2
    return f"{text[: spans[head - 1][1]]} {text[spans[-tail][0] :]}" if head else text[spans[-tail][0] :]
