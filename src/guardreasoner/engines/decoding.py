"""How a plan is followed, token by token, on any model that gives next-token logits.

A `Generation` is one completion in progress: it asks for logits (`Extension`) until its plan is done. A `Batch` is the
model's memory of several generations, and `complete` runs them in groups of similar length. A generation's result does
not depend on its group: it always sees the same tokens in the same order, with the same seed.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from guardreasoner.engines.base import PASSED, DeadlinePassed, OnText
from guardreasoner.engines.prompt_tokens import Encoded, PromptTokenizer
from guardreasoner.engines.quotation import LONGEST_PART, Sources, stop_at
from guardreasoner.generation import NOT_FINITE, Choice, Completion, Finish, Free, Plan, Prompt, Text, pick, segments_of

Logits = NDArray[np.float32]
"""Scores over the vocabulary, shape (vocabulary,)."""


@dataclass(frozen=True, slots=True)
class Extension:
    """A request for logits: keep this many tokens of the context, append these, and score the next one."""

    keep: int
    tokens: Sequence[int]
    prefix: int = 0
    """How many of the tokens are a prefix shared by all prompts of the kind (only where `keep` is 0)."""


class Batch(Protocol):
    """A model's memory of several rows."""

    def feed(self, asks: Mapping[int, Extension]) -> Mapping[int, Logits]:
        """Logits for each request, by row."""
        ...

    def drop(self, row: int) -> None:
        """This row is done."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How one run decodes."""

    context: int
    """Tokens of prompt and completion together."""
    ends: frozenset[int]
    """Ids that end a text."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_rows: int = 16
    max_tokens: int = 1 << 16
    """Rows of a group times the longest of them."""


@dataclass
class Generation:
    """One completion under way."""

    tokenizer: PromptTokenizer
    encoded: Encoded
    plan: Plan
    settings: Settings
    sources: Sources
    """The text that may be quoted."""
    sample: int = 0
    hear: Callable[[str], None] | None = None
    """Called with the text so far whenever it grows."""
    text: str = ""
    finish: Finish = "stop"
    error: str | None = None
    sampled: int = 0
    choices: list[Mapping[str, float]] = field(default_factory=list)
    _fed: int = 0
    _last: Logits | None = None
    _open: int | None = None
    """Where the free text that is being sampled begins."""
    _told: str = ""

    def __post_init__(self) -> None:
        self.ids = list(self.encoded.ids)
        seed = [self.settings.seed, zlib.crc32(np.array(self.ids, np.int64).tobytes()), self.sample]
        self._rng = np.random.default_rng(seed)
        self._random = random.Random(repr(seed))

    @property
    def forced(self) -> int:
        """Tokens that the plan needs whatever is sampled."""
        return sum(_forced(self.tokenizer, step) for step in self.plan)

    @property
    def fits(self) -> bool:
        """Whether the prompt, the forced text and at least one token of every free step fit in the context."""
        return len(self.ids) + self.forced + sum(isinstance(s, Free) for s in self.plan) <= self.settings.context

    @property
    def longest(self) -> int:
        """The most tokens this row can reach."""
        free = sum(_most(s) for s in self.plan if isinstance(s, Free))
        return min(self.settings.context, len(self.ids) + self.forced + free)

    def steps(self) -> Generator[Extension, Logits, None]:
        """Follow the plan."""
        for k, step in enumerate(self.plan):
            if isinstance(step, Text):
                self.ids += self.tokenizer.continuation(step.text)
                self.text += step.text
            elif isinstance(step, Choice):
                yield from self._choose(step)
            else:
                rest = sum(_forced(self.tokenizer, s) + isinstance(s, Free) for s in self.plan[k + 1 :])
                yield from self._write(step, self.settings.context - rest - len(self.ids))
            if self.error:
                return
            self._tell()

    def completion(self, finish: Finish | None = None, error: str | None = None) -> Completion:
        """The completion so far."""
        self._close()
        return Completion(
            text=self.text,
            finish=finish or self.finish,
            prompt_tokens=len(self.encoded.ids),
            completion_tokens=self.sampled,
            choices=tuple(self.choices),
            notes={"special_tokens": self.encoded.special} if self.encoded.special else {},
            error=error or self.error,
        )

    def _look(self) -> Generator[Extension, Logits, Logits]:
        """Logits after everything in the context."""
        if self._last is None or self._fed < len(self.ids):
            keep = min(self._fed, len(self.ids) - 1)
            self._last = yield Extension(keep, self.ids[keep:], 0 if keep else self.encoded.prefix)
            self._fed = len(self.ids)
        return self._last

    def _cut(self, length: int) -> None:
        if length < len(self.ids):
            del self.ids[length:]
            self._fed, self._last = min(self._fed, length), None

    def _choose(self, step: Choice) -> Generator[Extension, Logits, None]:
        """Score every word by all of its tokens, then write one."""
        base = len(self.ids)
        words = {word: self.tokenizer.word(word) for word in step.words}
        scores = dict.fromkeys(step.words, 0.0)
        known: dict[tuple[int, ...], Logits] = {}
        for word, tokens in words.items():
            for k, token in enumerate(tokens):
                if tokens[:k] not in known:
                    self._cut(base)
                    self.ids += tokens[:k]
                    known[tokens[:k]] = log_softmax((yield from self._look()))
                scores[word] += float(known[tokens[:k]][token])
        self._cut(base)
        chosen = pick(step, scores, self.settings.temperature, self._random)
        self.ids += words[chosen]
        self.text += chosen
        self.sampled += 1
        self.choices.append(scores)

    def _write(self, step: Free, room: int) -> Generator[Extension, Logits, None]:
        """Sample until the end token, a stop string, or the budget."""
        quoting = self.sources.quoting(step)
        if quoting and not quoting.runs:
            return  # there is nothing to quote, and what a model writes instead is made up
        self._open = start = len(self.ids)
        watch = _Watch(self.tokenizer, step.stop)
        most = self.sampled + step.max_tokens
        room = min(room, _most(step) - (quoting is not None))  # a mark that closes it
        while self.sampled < most and len(self.ids) - start < room:
            token = quoting.only() if quoting else None
            if token is None:
                logits = yield from self._look()
                if not np.isfinite(logits.max()):
                    self.finish, self.error = "unavailable", NOT_FINITE
                    break
                token = sample(quoting.allowed(logits) if quoting else logits, self.settings, self._rng)
                self.sampled += 1
            if token in self.settings.ends:
                break
            self.ids.append(token)
            if quoting:
                quoting.wrote(token)
            held = quoting is not None and quoting.open
            if not held and watch.sees(self.ids, start) and self._stop(step, start):
                break
            self._tell(step.stop)
        else:
            self.finish = "length"
            if quoting and quoting.open:
                self.ids.append(quoting.marks.close)
        self._close()

    def _close(self) -> None:
        """Turn the sampled ids into text."""
        if self._open is not None:
            self.text += self.tokenizer.decode(self.ids[self._open :])
            self._open = None

    def _tell(self, stops: Sequence[str] = ()) -> None:
        """Report the part of the text that can no longer change."""
        if self.hear is None:
            return
        text = self.text
        if self._open is not None:
            text += unstopped(self.tokenizer.lasting(self.ids[self._open :]), stops)
        if text != self._told:
            self._told = text
            self.hear(text)

    def _stop(self, step: Free, start: int) -> bool:
        """Take the first stop string and what follows it out of the text and of the model's context."""
        text = self.tokenizer.decode(self.ids[start:])
        at = stop_at(text, step)
        if at is None:
            return False
        kept = text[:at]
        ids = ids_of(self.tokenizer, self.ids[start:], kept)
        same = next((i for i, (a, b) in enumerate(zip(self.ids[start:], ids, strict=False)) if a != b), len(ids))
        self._cut(start + same)
        self.ids += ids[same:]
        self.text, self._open = self.text + kept, None
        return True


def _most(step: Free) -> int:
    """Tokens of a free step, with those that a quotation leaves no choice about: they are not counted as sampled."""
    return step.max_tokens + (LONGEST_PART if step.quotes else 0)


class _Watch:
    """Looks for stop strings at the end of sampled ids, and decodes only where one can have been completed."""

    def __init__(self, tokenizer: PromptTokenizer, stops: Sequence[str]) -> None:
        self.tokenizer, self.stops = tokenizer, [stop for stop in stops if stop]
        self.reach = 8 + max(map(len, self.stops), default=0)
        self.always = any(stop[-1].isspace() for stop in self.stops)  # decoders write blanks between tokens
        self.last = frozenset(stop[-1] for stop in self.stops) | {"\ufffd"}

    def sees(self, ids: Sequence[int], start: int) -> bool:
        """Whether ids[start:] may end in a stop string."""
        if not self.stops or not (self.always or self.last.intersection(self.tokenizer.shown(ids[-1]))):
            return False
        tail = self.tokenizer.decode(ids[max(start, len(ids) - self.reach) :])
        return any(stop in tail for stop in self.stops)


def complete(
    prompts: Sequence[Prompt],
    plan: Plan,
    *,
    tokenizer: PromptTokenizer,
    settings: Settings,
    open_batch: Callable[[int, int], Batch],
    deadline: float | None = None,
    n: int = 1,
    on_text: OnText | None = None,
) -> list[list[Completion]]:
    """Follow a plan after each prompt, n times each.

    Args:
        open_batch: (rows, tokens of the longest) -> a batch.
        deadline: `time.monotonic()` seconds, looked at before every token; rows that are not done then are `timeout`.
        n: completions per prompt; at temperature 0 they are copies of one.
        on_text: called with the first completion of each prompt as it grows.
    """
    copies = n if settings.temperature > 0 else 1
    done: list[list[Completion | None]] = [[None] * copies for _ in prompts]
    rows: list[tuple[int, Generation]] = []
    for i, prompt in enumerate(prompts):
        if _hopeless(prompt, settings.context):
            done[i] = [Completion("", "input_too_long", error=_too_long(settings.context))] * copies
            continue
        encoded = tokenizer.encode(prompt)
        sources = Sources(tokenizer, prompt)
        heard = None if on_text is None else partial(on_text, i)
        rows += [
            (i, Generation(tokenizer, encoded, plan, settings, sources, sample=j, hear=None if j else heard))
            for j in range(copies)
        ]
    for group in _groups(rows, settings):
        for (i, row), completion in zip(group, _run([row for _, row in group], open_batch, deadline), strict=True):
            done[i][row.sample] = completion
    return [[c for c in cs if c is not None] * (n if copies == 1 else 1) for cs in done]


def ids_of(tokenizer: PromptTokenizer, sampled: Sequence[int], kept: str) -> list[int]:
    """The ids of the first part of a sampled text: its own tokens as far as they go, then the rest encoded anew."""
    for length in range(len(sampled), -1, -1):
        head = tokenizer.decode(sampled[:length]) if length else ""
        if kept.startswith(head):
            rest = kept[len(head) :]
            return [*sampled[:length], *(tokenizer.judged(rest) if rest else ())]
    raise AssertionError("the empty text begins every text")


def unstopped(text: str, stops: Sequence[str]) -> str:
    """An unfinished text without a partial stop string at its end."""
    held = (k for stop in stops for k in range(1, len(stop) + 1) if text.endswith(stop[:k]))
    return text[: len(text) - max(held, default=0)]


def log_softmax(logits: Logits) -> Logits:
    """Natural-log probabilities over the last axis, in float64 inside."""
    x = logits.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    result: Logits = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True))).astype(np.float32)
    return result


def sample(logits: Logits, settings: Settings, rng: np.random.Generator) -> int:
    """The next token: the best one at temperature 0, else drawn from the smallest set that holds `top_p`."""
    if settings.temperature <= 0:
        return int(logits.argmax())
    p = np.exp(log_softmax(logits / settings.temperature).astype(np.float64))
    if settings.top_p < 1.0:
        order = np.argsort(-p)
        before = np.cumsum(p[order]) - p[order]
        p[order[before >= settings.top_p]] = 0.0
    return int(rng.choice(len(p), p=p / p.sum()))


def _forced(tokenizer: PromptTokenizer, step: Free | Text | Choice) -> int:
    if isinstance(step, Free):
        return 0
    if isinstance(step, Text):
        return len(tokenizer.continuation(step.text))
    return max(len(tokenizer.word(word)) for word in step.words)


def _hopeless(prompt: Prompt, context: int) -> bool:
    """Whether a prompt is too long to be worth encoding: no tokenizer averages 64 characters a token."""
    return sum(len(s.text) for s in segments_of(prompt)) > 64 * context


def _too_long(context: int) -> str:
    return f"the prompt and the answer do not fit in the model's {context} tokens"


def _groups(rows: Sequence[tuple[int, Generation]], settings: Settings) -> list[list[tuple[int, Generation]]]:
    """Rows of similar length together, longest first, within the limits of a batch."""
    groups: list[list[tuple[int, Generation]]] = []
    longest = 0
    for entry in sorted(rows, key=lambda e: (-len(e[1].ids), e[0], e[1].sample)):
        full = groups and (
            len(groups[-1]) >= settings.max_rows or longest * (len(groups[-1]) + 1) > settings.max_tokens
        )
        if not groups or full:
            groups.append([])
            longest = entry[1].longest
        groups[-1].append(entry)
    return groups


def _run(
    rows: Sequence[Generation], open_batch: Callable[[int, int], Batch], deadline: float | None
) -> list[Completion]:
    results: list[Completion | None] = [None] * len(rows)
    for i, row in enumerate(rows):
        if not row.fits:
            results[i] = row.completion("input_too_long", _too_long(row.settings.context))
    live = {i: row.steps() for i, row in enumerate(rows) if results[i] is None}
    batch: Batch | None = None
    answers: Mapping[int, Logits | None] = dict.fromkeys(live)
    while live:
        asks: dict[int, Extension] = {}
        for i, steps in list(live.items()):
            try:
                logits = answers[i]
                asks[i] = next(steps) if logits is None else steps.send(logits)
            except StopIteration:
                results[i] = rows[i].completion()
                del live[i]
                if batch is not None:
                    batch.drop(i)
        if not asks:
            break
        late = deadline is not None and time.monotonic() >= deadline
        if not late:
            batch = batch or open_batch(len(rows), max(row.longest for row in rows))
            try:
                answers = batch.feed(asks)
            except DeadlinePassed:
                late = True
        if late:
            for i in asks:
                results[i] = rows[i].completion("timeout", PASSED)
            break
    return [r for r in results if r is not None]
