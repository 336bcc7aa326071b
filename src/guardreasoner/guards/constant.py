"""The guard that always gives the positive label: the floor below every F1."""

from __future__ import annotations

from collections.abc import Sequence

from guardreasoner.guards.base import Judging
from guardreasoner.types import TASKS, Exchange, Labels, Task, Verdict


class ConstantGuard(Judging):
    """Says `harmful`, `refusal`, `harmful` to everything, with no scores, because it has no opinion."""

    name = "constant"
    tasks: tuple[Task, ...] = tuple(TASKS)

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        return [
            Verdict(
                exchange_id=exchange.id,
                guard=self.name,
                mode="instant",
                status="ok",
                labels=Labels.of({task: TASKS[task].positive for task in exchange.tasks}),
                flagged=True,
            )
            for exchange in exchanges
        ]
