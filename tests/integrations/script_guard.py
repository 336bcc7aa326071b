"""The guard that the scripts of this folder use, and the counting of their cases. They run in other environments."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from guardreasoner.guards.base import Judging
from guardreasoner.types import TASKS, Labels, Verdict

BLOCKED = "This was blocked by the content policy."


class Words(Judging):
    """Finds the word `bad`; `RAISE` breaks it. `asked` holds what it was given."""

    name = "words"
    tasks = tuple(TASKS)

    def __init__(self) -> None:
        self.asked = []

    def judge(self, exchanges):
        self.asked += exchanges
        if any("RAISE" in e.prompt + (e.response or "") for e in exchanges):
            raise ValueError("planted words of a text")
        return [self.one(e) for e in exchanges]

    def one(self, exchange):
        earlier = "".join(m.content for m in exchange.context)
        asks, says = "bad" in exchange.prompt + earlier, "bad" in (exchange.response or "")
        replied = exchange.response is not None
        labels = Labels(
            "harmful" if asks else "unharmful",
            *((("compliance"), "harmful" if says else "unharmful") if replied else ()),
        )
        return Verdict(exchange.id, self.name, "instant", "ok", labels, flagged=asks or says, text="model words")


class Diluted(Words):
    """Finds the word only among few others, as a real guard does: harm in a long text is hard to see."""

    def one(self, exchange):
        text = " ".join((exchange.prompt, exchange.response or "", *(m.content for m in exchange.context)))
        if len(text.split()) > 8:
            exchange = replace(exchange, prompt="long", response=exchange.response and "long", context=())
        return super().one(exchange)


def run(cases: dict[str, Callable[[], None]]) -> None:
    """Run every function whose name begins with `test_`, and say how many there were."""
    found = [case for name, case in cases.items() if name.startswith("test_")]
    for case in found:
        case()
    print(f"passed {len(found)}")
    sys.stdout.flush()
