"""How many rows a run has and how long they are, before they are made."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from guardreasoner.data.mix import load_mix
from guardreasoner.errors import ConfigError, EngineError
from guardreasoner.records import read_jsonl, read_records
from guardreasoner.teach.imported import HUB_ID, PUBLISHED
from guardreasoner.train.recipe import Recipe
from guardreasoner.types import Example, Trace

CHARACTERS_PER_TOKEN = 4.0
"""Without a tokenizer: English text in a Llama-3 vocabulary."""
FRAME_TOKENS = {"raw": 150, "chat": 160}
"""Instruction, markers and answer block."""
TRACE_TOKENS = 255
"""Tokens of an answer with reasoning (paper Table 5: 254-260)."""
PUBLISHED_LENGTH = 755
"""Tokens of a published row: about 500 of prompt and instruction (a guess), and the answer."""
ENOUGH = 400
"""Rows that are encoded to learn how long rows are."""


@dataclass(frozen=True)
class Lengths:
    """Rows of a run and their tokens."""

    rows: int = 0
    tokens: Sequence[int] = (0,)
    """Of some rows, prompt and answer."""
    answer: int = TRACE_TOKENS
    """Mean tokens of an answer."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """Rows by source; empty = not known."""

    @property
    def mean(self) -> float:
        """Mean tokens of a row."""
        return sum(self.tokens) / len(self.tokens)

    @property
    def longest(self) -> int:
        """Most tokens of a row."""
        return max(self.tokens)

    def padded(self, together: int, *, grouped: bool) -> float:
        """Mean tokens of a row with its padding, where so many rows share a pass."""
        if grouped or together == 1 or len(self.tokens) < 2:
            return self.mean
        lot = random.Random(0)
        draws = [max(lot.choice(self.tokens) for _ in range(together)) for _ in range(2000)]
        return sum(draws) / len(draws)


def lengths_of(recipe: Recipe, out: Path, data_dir: Path | None) -> Lengths:
    """Rows from the traces that are there, or else from the data section."""
    traces = out / "synthesize" / "traces.jsonl"
    config = recipe.sft
    if traces.exists():
        sources = Counter(row["example"]["exchange"].get("source", "") for _, row in read_jsonl(traces))
        some = [(t.example, t.reasoning) for t in islice(read_records(Trace, traces), ENOUGH)]
        return _of(recipe, some, rows=sum(sources.values()), sources=sources)
    if recipe.traces == HUB_ID:
        named = {name: row.samples for name, row in PUBLISHED.items() if name != "all"}
        return Lengths(sum(named.values()), (min(PUBLISHED_LENGTH, config.max_tokens),), TRACE_TOKENS, named)
    if recipe.traces or recipe.seeds:
        raise ConfigError("rows are known when traces are there; run `guardreasoner synthesize` first")
    train, _, _ = load_mix(recipe.data, data_dir)
    spread = random.Random(0).sample(train, min(ENOUGH, len(train)))
    words = "x " * TRACE_TOKENS
    sources = Counter(e.exchange.source for e in train)
    return _of(recipe, [(e, words) for e in spread], rows=len(train), sources=sources)


def _of(recipe: Recipe, some: Sequence[tuple[Example, str]], *, rows: int, sources: Mapping[str, int]) -> Lengths:
    pairs = list(_encoded(recipe, some))
    answer = round(sum(a for _, a in pairs) / len(pairs))
    return Lengths(rows, tuple(min(n, recipe.sft.max_tokens) for n, _ in pairs), answer, sources)


def _encoded(recipe: Recipe, some: Sequence[tuple[Example, str]]) -> Iterator[tuple[int, int]]:
    """Tokens of rows and of their answers: encoded where there is a tokenizer, else counted by characters."""
    maker = _maker(recipe)
    for example, reasoning in some:
        row = maker.row(example, reasoning) if maker else None
        if row is not None:
            learned = sum(label != -100 for label in row.labels)
            yield len(row.input_ids), max(1, learned)
        else:
            texts = len(example.exchange.prompt) + len(example.exchange.response or "")
            answer = int(len(reasoning) / CHARACTERS_PER_TOKEN) + 20
            yield int(texts / CHARACTERS_PER_TOKEN) + FRAME_TOKENS[recipe.model.wire] + answer, answer


def _maker(recipe: Recipe) -> Any:
    """What makes rows, where the base's tokenizer can be loaded."""
    from guardreasoner.train.models import base_tokenizer
    from guardreasoner.train.rows import RowMaker

    config = recipe.sft
    try:
        tokenizer = base_tokenizer(recipe.model)
    except EngineError:
        return None
    return RowMaker(tokenizer, recipe.model.wire, config.max_tokens, judged_tokens=config.judged_tokens)
