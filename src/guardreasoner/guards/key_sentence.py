"""Which sentence of a text weighs most for a verdict: a guard that quotes, behind the one that decides, quotes from it.

A sentence weighs as much as it speaks for the verdict by itself. Leaving it out of its text tells hardly more (the rest
mostly says the same) and takes a pass over the whole text for each sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from guardreasoner.guards.pieces import sentences
from guardreasoner.types import Labels, Task, Verdict

MOST = 64
"""Parts of a text that are weighed at once: of a longer one first longer parts, then the sentences of the heaviest."""
FEWEST = 10
"""A sentence of a request of fewer words comes with those around it: alone it does not say what it is about."""
MOST_WORDS, WORD_WEIGHT = 6, 0.2
"""Where there is no harm and no refusal to be found, each word of five letters or more adds so much to the weight of a
sentence, up to so many: most weigh nearly the same, and greetings and openings would be among the heaviest."""
_WORD = re.compile(r"[^\W\d_]{5,}")


@dataclass(frozen=True, slots=True)
class FirstVerdict:
    """What a guard that judged first tells the one behind it about an exchange."""

    verdict: Verdict | None = None
    open: Collection[Task] = tuple(Task)
    """The tasks that the other has a say in; in all others the first one's label stands."""
    parts: Mapping[Task, str] = field(default_factory=dict)
    """What weighed most for a label that stands: the part of the text that the other quotes."""

    @property
    def standing(self) -> Labels:
        """The labels that the other cannot change: its reasoning concludes with them."""
        labels = Labels() if self.verdict is None else self.verdict.labels
        return Labels.of({t: labels[t] for t in labels.tasks if t not in self.open})


def content_weight(text: str) -> float:
    """How much a text says of what it is about."""
    return WORD_WEIGHT * min(MOST_WORDS, len(_WORD.findall(text)))


def heaviest(text: str, weigh: Callable[[Sequence[str]], Sequence[float]], fewest: int = 0) -> tuple[float, str]:
    """The weight of the sentence of a text that weighs most, and that sentence.

    Args:
        text: any.
        weigh: how much each of some texts speaks for a verdict.
        fewest: words; a sentence of fewer comes with those around it.
    """
    parts, size = sentences(text), 0
    while size != 1:
        size = -(-len(parts) // MOST)
        runs = [parts[i : i + size] for i in range(0, len(parts), size)]
        weights = weigh(["".join(run) for run in runs])
        best = max(range(len(runs)), key=weights.__getitem__)
        parts = parts if size == 1 else runs[best]
    start, end = best, best + 1
    while end - start < len(parts) and len("".join(parts[start:end]).split()) < fewest:
        start, end = (start - 1, end) if start else (start, end + 1)
    return weights[best], "".join(parts[start:end])
