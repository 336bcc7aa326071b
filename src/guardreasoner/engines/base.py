"""Prompt in, text out: the contract every engine keeps. Prompts, plans and completions are in `plans`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from guardreasoner.errors import EngineTimeout
from guardreasoner.plans import Completion, Plan, Prompt

T = TypeVar("T")
GRACE_S = 0.25
"""How long past the deadline an engine may take to give up by itself."""

OnText = Callable[[int, str], None]
"""Hears what is being written: a row's place among the prompts, and the text after its prompt so far, free and forced.

Only what no later token changes is said: whole characters, and no beginning of a stop string that would be taken out
again. So each text begins with the one before it, and the completion's text begins with each.
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
    """`run` looks at its deadline between steps that cannot hang, so that nobody has to watch over it."""
    streams: bool = False
    """`run` also takes `on_text: OnText | None`, which hears the rows while they are written. Of several samples of a
    prompt it hears the first. It must not call the engine; what it raises ends the run and reaches the caller."""


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
        """Give back memory and connections; safe to call twice."""
        ...


def rough_offsets(text: str) -> list[tuple[int, int]]:
    """`Engine.offsets` of an engine without a tokenizer: four characters are taken for a token."""
    return [(i, min(i + 4, len(text))) for i in range(0, len(text), 4)]


def within(deadline: float | None, work: Callable[[], T]) -> T:
    """What `work` returns; where there is a deadline, stop waiting shortly after it even if an engine hangs.

    Raises:
        EngineTimeout: nothing came back in time; what was begun goes on in its thread, unheard.
    """
    if deadline is None:
        return work()
    pool = ThreadPoolExecutor(1, thread_name_prefix="engine")
    try:
        return pool.submit(work).result(max(0.0, deadline - time.monotonic()) + GRACE_S)
    except FutureTimeout:
        raise EngineTimeout("the engine did not answer before the deadline") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
