"""The engine's results for the passages of one exchange, and which of them decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.formats.base import Parsed
from guardreasoner.formats.conclusion import conclusion
from guardreasoner.guards.pieces import Passage
from guardreasoner.plans import Completion
from guardreasoner.types import TASKS, Exchange, Labels, Status, Task


@dataclass(frozen=True, slots=True)
class Reading:
    """What one engine row said."""

    passage: Passage
    completion: Completion
    parsed: Parsed
    probabilities: Mapping[Task, float]
    """P(positive) of each task that was scored, a piece's moved so that its bar is at the threshold."""
    passes: int = 1


def status_of(reading: Reading) -> Status:
    """`ok` where every task that was asked has a label."""
    finish = reading.completion.finish
    if not reading.completion.complete:
        return finish  # type: ignore[return-value]
    if any(reading.parsed.labels[t] is None for t in reading.passage.tasks):
        return "truncated" if finish == "length" and reading.parsed.problem == "no_block" else "unparsed"
    return "ok"


def why(reading: Reading) -> str:
    """One sentence on a reading that is `truncated` or `unparsed`."""
    if reading.completion.finish == "length":
        return "the output budget ran out before the answer block; raise the budget"
    said = {"no_block": "no answer block", "no_verdict": "an answer block without verdicts", "conflict": "two verdicts"}
    return f"the model wrote {said.get(reading.parsed.problem or '', 'an incomplete answer block')}"


def worst_of(task: Task, readings: Sequence[Reading]) -> Reading:
    """The reading that decides a task: the most harmful one, or, for refusal, the one that complies most."""
    wanted = TASKS[task].negative if task is Task.refusal else TASKS[task].positive

    def badness(reading: Reading) -> tuple[bool, float]:
        p = reading.probabilities.get(task, 0.0)
        return reading.parsed.labels[task] == wanted, -p if task is Task.refusal else p

    return max(readings, key=badness)


def harmfulness(reading: Reading) -> tuple[bool, float]:
    """An order of readings of one passage: by label, then by probability."""
    return reading.parsed.labels.harmful, max(reading.probabilities.values(), default=0.0)


def notes_on(
    exchange: Exchange,
    readings: Sequence[Reading],
    *,
    labels: Labels | None = None,
    shown: Reading | None = None,
) -> dict[str, object]:
    """The verdict's notes.

    Args:
        labels: what was decided; None = nothing.
        shown: the reading whose steps the verdict shows.
    """
    notes: dict[str, object] = {}
    if undone := tuple(dict.fromkeys(name for r in readings for name in r.passage.undone)):
        notes["disguise"] = list(undone)
    if wire_format.forges(exchange.prompt) or wire_format.forges(exchange.response or ""):
        notes["markers"] = "the text holds lines that read like turn markers or an answer block"
    for reading in readings:
        notes |= reading.completion.notes
    if labels is not None and shown is not None:
        said = {t: conclusion(shown.parsed.steps, t) for t in exchange.tasks}
        differing = [t.value for t, word in said.items() if word is not None and word != labels[t]]
        if differing:
            notes["disagreement"] = differing
    return notes
