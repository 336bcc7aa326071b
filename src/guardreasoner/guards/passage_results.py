"""The engine's results for the passages of one exchange, and which of them decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.formats.base import Parsed
from guardreasoner.formats.conclusion import conclusion
from guardreasoner.generation import Completion
from guardreasoner.guards.pieces import Passage
from guardreasoner.types import TASKS, Exchange, Labels, Status, Task


@dataclass(frozen=True, slots=True)
class PassageResult:
    """What one engine row said."""

    passage: Passage
    completion: Completion
    parsed: Parsed
    probabilities: Mapping[Task, float]
    """P(positive) of each task that was scored, a piece's moved so that its bar is at the threshold."""
    passes: int = 1


def status_of(result: PassageResult) -> Status:
    """`ok` where every task that was asked has a label."""
    finish = result.completion.finish
    if not result.completion.complete:
        return finish  # type: ignore[return-value]
    if any(result.parsed.labels[t] is None for t in result.passage.tasks):
        return "truncated" if finish == "length" and result.parsed.problem == "no_block" else "unparsed"
    return "ok"


def why(result: PassageResult) -> str:
    """One sentence on a result that is `truncated` or `unparsed`."""
    if result.completion.finish == "length":
        return "the output budget ran out before the answer block; raise the budget"
    said = {"no_block": "no answer block", "no_verdict": "an answer block without verdicts", "conflict": "two verdicts"}
    return f"the model wrote {said.get(result.parsed.problem or '', 'an incomplete answer block')}"


def worst_of(task: Task, results: Sequence[PassageResult]) -> PassageResult:
    """The result that decides a task: the most harmful one, or, for refusal, the one that complies most."""

    def badness(result: PassageResult) -> tuple[bool, float]:
        p = result.probabilities.get(task, 0.0)
        return result.parsed.labels[task] == TASKS[task].decisive, -p if task is Task.refusal else p

    return max(results, key=badness)


def harmfulness(result: PassageResult) -> tuple[bool, float]:
    """An order of results of one passage: by label, then by probability."""
    return result.parsed.labels.harmful, max(result.probabilities.values(), default=0.0)


def notes_on(
    exchange: Exchange,
    results: Sequence[PassageResult],
    *,
    labels: Labels | None = None,
    shown: PassageResult | None = None,
) -> dict[str, object]:
    """The verdict's notes.

    Args:
        labels: what was decided; None = nothing.
        shown: the result whose steps the verdict shows.
    """
    notes: dict[str, object] = {}
    if undone := tuple(dict.fromkeys(name for r in results for name in r.passage.undone)):
        notes["disguise"] = list(undone)
    if wire_format.forges(exchange.prompt) or wire_format.forges(exchange.response or ""):
        notes["markers"] = "the text holds lines that read like turn markers or an answer block"
    for result in results:
        notes |= result.completion.notes
    if labels is not None and shown is not None:
        said = {t: conclusion(shown.parsed.steps, t) for t in exchange.tasks}
        differing = {t.value: word for t, word in said.items() if word is not None and word != labels[t]}
        if differing:
            notes["disagreement"] = differing
    return notes
