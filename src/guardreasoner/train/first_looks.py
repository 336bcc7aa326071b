"""First looks for training rows: what a guard that judged first would have said of them.

Its own verdicts on these rows would not do, since it was trained on them and is hardly ever wrong there. So each label
of a row gets the answer that the guard gave on some validation row with the same label: right as often, and as sure, as
it is on text that it does not know.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from guardreasoner.data.harm_kinds import kind_of
from guardreasoner.data.mix import draw
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.formats.conclusion import conclusion
from guardreasoner.types import Example, Labels, Task, Trace, Verdict

WITHOUT = 0.1
"""Share of the rows that get none, so that the model still judges where nothing was said before."""


@dataclass(frozen=True)
class FirstLooks:
    """Where the looks of a run are drawn from."""

    judged: Sequence[tuple[Example, Verdict]]
    """Validation rows and the guard's verdicts on them."""
    seed: int = 0

    def of(self, trace: Trace) -> str:
        """The look for one row with reasoning; "" where it gets none."""
        exchange, read = trace.example.exchange, wire_format.parse(trace.reasoning)
        if draw(self.seed, "look", exchange.id) < WITHOUT:
            return ""
        labels, scores = dict[str, str | None](), dict[str, float | None]()
        kinds: Mapping[str, float] = {}
        for task in exchange.tasks:
            true = trace.example.gold[task] or conclusion(read.steps, task)
            alike = self._alike.get((task, true, exchange.response is None), ())
            if not alike:
                continue
            example, verdict = alike[int(draw(self.seed, "look", task.value, exchange.id) * len(alike))]
            labels[task.value], scores[task.value] = verdict.labels[task], verdict.scores[task.value]
            if not kinds and verdict.labels[task] == "harmful":
                kind = kind_of(read.harm)
                kinds = {kind: 1.0} if kind and _right_kind(example, verdict) else verdict.kinds
        return wire_format.first_look(Verdict("", "", "instant", "ok", Labels.of(labels), scores, kinds=kinds))

    @cached_property
    def _alike(self) -> dict[tuple[Task, str | None, bool], list[tuple[Example, Verdict]]]:
        """The validation rows by task, gold label, and whether there is only a request."""
        found = defaultdict[tuple[Task, str | None, bool], list[tuple[Example, Verdict]]](list)
        for example, verdict in self.judged:
            for task in example.gold.tasks:
                if verdict.status == "ok" and verdict.scores[task.value] is not None:
                    found[task, example.gold[task], example.exchange.response is None].append((example, verdict))
        return found


def _right_kind(example: Example, verdict: Verdict) -> bool:
    """Whether the guard named the kind that the row's source names; where that names none, the guard is believed."""
    true = kind_of(example.category)
    return true is None or wire_format.likeliest(verdict.kinds) == true
