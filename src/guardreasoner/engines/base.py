"""The contract of every engine: prompt in, text out. Prompts, plans and completions are defined in `generation`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

from guardreasoner.errors import EngineError, EngineTimeout
from guardreasoner.generation import Completion, Plan, Prompt

T = TypeVar("T")
PASSED = "the deadline passed before the answer was complete"
LATE = Completion("", "timeout", error=PASSED)
GRACE_S = 0.25
"""Seconds past the deadline in which an engine may still stop by itself."""


class DeadlinePassed(Exception):
    """The deadline passed in the middle of long prompts."""


OnText = Callable[[int, str], None]
"""Called while text is generated, with the index of the prompt and the text so far, free and forced.

It is given only text that no later token changes: whole characters, and no part of a stop string. So each text starts
with the one before it, and the completion's text starts with each of them.
"""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do."""

    force: bool
    """It can force text in the middle of a completion (`Text` after `Free`, and `Choice`)."""
    logprobs: bool
    """`Completion.choices` are filled."""
    context_tokens: int | None
    """Prompt and completion together; None = unknown."""
    samples: bool = True
    """n > 1 gives n different samples at temperature > 0."""
    keeps_deadline: bool = False
    """`run` checks its deadline itself, between steps that cannot hang."""
    streams: bool = False
    """`run` also takes `on_text: OnText | None`, called as rows are generated (first sample of each prompt). It must
    not call the engine; an exception in it ends the run and reaches the caller."""


@runtime_checkable
class Engine(Protocol):
    """A model that can run a plan after each of a list of prompts."""

    name: str

    @property
    def capabilities(self) -> Capabilities: ...

    def run(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        *,
        deadline: float | None = None,
        n: int = 1,
        temperature: float = 0.0,
    ) -> list[list[Completion]]:
        """Run the plan after each prompt, n times each, in input order.

        Args:
            prompts: any number; the engine batches as it likes.
            plan: the same for all.
            deadline: `time.monotonic()` seconds after which unfinished rows end with finish `timeout`.
            n: completions per prompt.
            temperature: 0 = greedy.

        Returns:
            One list of n completions per prompt. A row that failed has a `finish` that says so.

        Raises:
            PlanUnsupported: the engine cannot do a step of the plan.
            EngineError: the engine as a whole is broken (no row has an answer).
        """
        ...

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character span of every token of judged text, for windowing; engines without a tokenizer estimate."""
        ...

    def close(self) -> None:
        """Free memory and connections; safe to call twice."""
        ...


def unanswered(error: Exception) -> Completion:
    """The completion that an error prevented; of one that is not ours, its kind alone is told."""
    if isinstance(error, EngineError):
        return Completion("", error.finish, error=str(error))
    return Completion("", "unavailable", error=f"the engine died ({type(error).__name__})")


def until(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def rough_offsets(text: str) -> list[tuple[int, int]]:
    """`Engine.offsets` for an engine without a tokenizer: every four characters count as a token."""
    return [(i, min(i + 4, len(text))) for i in range(0, len(text), 4)]


def within(deadline: float | None, work: Callable[[], T]) -> T:
    """The result of `work`; stops waiting shortly after the deadline, whatever its thread still does."""
    if deadline is None:
        return work()
    pool = ThreadPoolExecutor(1, thread_name_prefix="engine")
    try:
        return pool.submit(work).result(max(0.0, deadline - time.monotonic()) + GRACE_S)
    except FutureTimeout:
        raise EngineTimeout("the engine did not answer before the deadline") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def completions(
    engine: Engine,
    prompts: Sequence[Prompt],
    plan: Plan,
    deadline: float | None,
    *,
    raises: Callable[[Exception], bool],
    on_text: OnText | None = None,
) -> list[list[Completion]]:
    """What `Engine.run` says to each prompt; an error becomes completions, and no prompt takes another with it.

    Args:
        deadline: kept for an engine that does not keep it itself.
        raises: whether an error is the caller's own to handle.
        on_text: only for an engine that `streams`.
    """
    hear: dict[str, Any] = {"on_text": on_text} if on_text else {}
    watched = None if engine.capabilities.keeps_deadline else deadline
    try:
        return within(watched, lambda: engine.run(prompts, plan, deadline=deadline, **hear))
    except Exception as error:
        if raises(error):
            raise
        if len(prompts) == 1 or isinstance(error, EngineError):
            return [[unanswered(error)]] * len(prompts)
    rows = []
    for i, prompt in enumerate(prompts):  # each by itself
        alone = partial(_renumbered, on_text, i) if on_text else None
        rows += completions(engine, [prompt], plan, deadline, raises=raises, on_text=alone)
    return rows


def _renumbered(on_text: OnText, row: int, _: int, text: str) -> None:
    on_text(row, text)
