"""Exchange in, Verdict out: the contract every guard keeps, ours or anybody's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from guardreasoner.types import TASKS, Exchange, FailMode, Status, Task, Verdict


@runtime_checkable
class Guard(Protocol):
    """Judges exchanges."""

    name: str
    tasks: tuple[Task, ...]
    """The tasks this guard answers."""

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict per exchange, in input order; a failure is a verdict whose `status` says so."""
        ...

    async def ajudge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """The same for callers with an event loop."""
        ...

    def check(self, prompt: str, response: str | None = None) -> Verdict:
        """One verdict on one request and, if given, its reply."""
        ...

    def close(self) -> None:
        """Give back memory and connections; safe to call twice."""
        ...


class Judging:
    """`ajudge`, `check` and `close` in terms of `judge`, for guards that have nothing better."""

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        raise NotImplementedError

    async def ajudge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        import asyncio

        return await asyncio.to_thread(self.judge, exchanges)

    def check(self, prompt: str, response: str | None = None) -> Verdict:
        return self.judge([Exchange(id="check", prompt=prompt, response=response)])[0]

    def close(self) -> None:
        return None


def unjudged(verdict: Verdict, status: Status, error: str | None, fail_mode: FailMode) -> Verdict:
    """The verdict of an exchange that could not be judged: flagged under `closed`, let through, marked, under `open`.

    Args:
        verdict: whatever is known besides (id, guard, mode, text, usage).
        status: why there is no judgement; not `ok`.
        error: one sentence.
        fail_mode: the guard's.
    """
    return replace(verdict, status=status, error=error, fail_mode=fail_mode, flagged=fail_mode == "closed")


@dataclass(frozen=True, slots=True)
class GuardRow:
    """One line of the guard table: everything that tells one guard from another."""

    name: str
    """Lower case with hyphens."""
    format: str
    """Answer format: a module of `formats`, or `` for guards that are code (`constant`)."""
    engine: str
    """The engine it runs on unless another is asked for: onnx, hf, vllm, openai, ..."""
    model: str
    """Hub id, folder, or the provider's model name."""
    revision: str | None = None
    """Pinned commit of the hub repository."""
    tasks: tuple[Task, ...] = tuple(TASKS)
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the format needs to know (`wire`, `variant`, `max_tokens`, ...)."""
    key: str | None = None
    """Environment variable that holds the API key."""
    gated: bool = False
    """The weights ask for a licence to be accepted on the hub."""
    licence: str = ""
    retired: str | None = None
    """Date on which the provider took it down."""
    current: str = ""
    """The provider's present model in a retired one's place."""
    confirmed: bool = True
    """Whether the prompt's bytes were compared with its owner's; `guardreasoner guards` says so where not."""
    note: str = ""
    """What a reader of the table must know (`bytes unconfirmed`, contamination, ...)."""
