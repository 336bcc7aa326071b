"""The `synthesize` section of a recipe: who writes the reasoning, and how much that may cost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from guardreasoner.engines.http import plain_url
from guardreasoner.errors import ConfigError, UnknownName, printable
from guardreasoner.teach.question import Unlabelled

TEACHERS = ("written", "openai", "anthropic", "openai-batch", "vllm", "hf", "onnx")
LABELS_ONLY = "none"
"""The `teacher` of traces without reasoning."""
RESUMABLE = (
    "base_url", "concurrency", "key", "max_cost", "poll_s", "price_in", "price_out", "requests_per_minute", "timeout_s",
    "tokens_per_minute",
)  # fmt: skip
"""Settings that may change between a run and its resumption."""


@dataclass(frozen=True)
class SynthesizeConfig:
    """Which teacher to use, and how much it may cost."""

    teacher: str = "openai"
    """`openai` (any OpenAI-compatible server), `anthropic`, `openai-batch`, a local engine (`vllm`, `hf`, `onnx`), or
    `written`: no language model, but the reasoning that comes with the rows."""
    quote: bool = False
    """`written` reasoning becomes shorter and quotes the judged text (`data.quoted_reasoning`); where it cannot, the
    example is left out."""
    model: str = "gpt-4o-2024-08-06"
    """The teacher's model (`train/llm.py`)."""
    base_url: str | None = None
    """Where the server listens; None = the provider's own."""
    key: str | None = None
    """Name of the environment variable that holds the key; None = the provider's usual one."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every request; null removes one (`{max_tokens: null, max_completion_tokens: 4096}`)."""
    temperature: float = 0.0
    """`train/llm.py`."""
    max_tokens: int = 2048
    """Most tokens of an answer."""
    attempts: int = 3
    """Most answers per example: the first, then retries that say what was wrong (released script: 1, unchecked)."""
    unlabelled: Unlabelled = "teacher"
    """Labels that the data lack: the `teacher` supplies them (paper: BeaverTails), or `skip` the task."""
    share: float = 1.0
    """Share of the examples that get reasoning; the rest keep their labels only."""
    concurrency: int = 64
    """Most calls in flight."""
    requests_per_minute: float | None = None
    """None = learned from the server's headers."""
    tokens_per_minute: float | None = None
    """None = learned from the server's headers."""
    timeout_s: float = 120.0
    """Seconds one call may take."""
    price_in: float | None = None
    """Dollars per million prompt tokens; None = the list price, where it is known."""
    price_out: float | None = None
    """Dollars per million answer tokens."""
    max_cost: float | None = None
    """In dollars: the worst-case cost of each call is reserved before it is made. A call that timed out or broke off
    may be billed and is not counted."""
    poll_s: float = 30.0
    """Seconds between checks on a batch."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.teacher not in TEACHERS:
            raise UnknownName("teacher", self.teacher, TEACHERS)
        if self.quote and self.teacher != "written":
            raise ConfigError("synthesize.quote shortens reasoning that comes with the rows; set teacher: written")
        if self.key is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]*", self.key):
            raise ConfigError(
                "synthesize.key is the NAME of an environment variable (OPENAI_API_KEY), never the key itself"
            )
        if self.base_url is not None:
            plain_url(self.base_url, "synthesize.base_url")
        for name in _names(self.options):
            if re.search(r"key|secret|auth|password|header", name, re.I):
                raise ConfigError(f"synthesize.options.{printable(name)}: secrets belong in the environment, not here")


def _names(value: Any) -> Iterator[str]:
    """The names in mappings, at any depth."""
    if isinstance(value, Mapping):
        yield from map(str, value)
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        yield from _names(one)
