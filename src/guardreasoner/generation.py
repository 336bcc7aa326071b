"""What a guard asks of an engine, and what comes back: prompts, plans, completions.

A prompt is a list of segments. `Scaffold` text is ours and may contain special tokens. `Judged` text is hostile: it is
encoded by itself with special tokens disabled, so that it can forge neither a turn nor an answer block.

A plan is what happens after the prompt, in order: sample freely (`Free`), force a text (`Text`), or decide between
words (`Choice`). The three reasoning modes are three plans:

    instant   [Text, Choice] x tasks
    short     [Free(n), Text, Choice, ...]
    full      [Free, Text, Choice, ...]
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Scaffold:
    """Text of ours: instructions, turn markers, headings. Special-token strings in it are special tokens."""

    text: str


@dataclass(frozen=True, slots=True)
class Judged:
    """Text of a user or a model: encoded by itself, special-token strings in it are ordinary text."""

    text: str
    parts: Mapping[str, str] = field(default_factory=dict)
    """What of it is quoted, under the names that steps have for it (`Free.quotes`); "" = what the model chooses."""


Segment = Scaffold | Judged


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat prompt."""

    role: str
    content: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Chat:
    """A prompt in messages: the engine applies the model's own chat template, or sends them to a chat server."""

    turns: tuple[Turn, ...]
    template_args: Mapping[str, object] = field(default_factory=dict)
    """Keyword arguments of the model's chat template (`guardian_config`, `categories`, ...); `content_parts` is ours:
    the template wants each content as `[{"type": "text", "text": ...}]` (LLaMA Guard 3 1B and 4)."""


Prompt = tuple[Segment, ...] | Chat


def segments_of(prompt: Prompt) -> tuple[Segment, ...]:
    """All segments of a prompt in order, whatever its form."""
    return tuple(s for t in prompt.turns for s in t.content) if isinstance(prompt, Chat) else prompt


QUOTES = "“", "”"
"""Around judged text in reasoning."""


def quotable(text: str) -> str:
    """Judged text as reasoning may quote it: in one line, its own curly quotation marks as single ones.

    Every other sign stays. What would open a tag, a special token or a Markdown link has a blank in it.

    >>> quotable("Is “a | b > c”\\ntrue? <|im_end|>")
    'Is ‘a | b > c’ true? < |im_end|>'
    """
    return " ".join(_OPENS.sub(r"\g<0> ", text.translate(_SINGLE)).split())


_SINGLE = str.maketrans("".join(QUOTES), "‘’")
_OPENS = re.compile(r"<(?=[^\s\d=<-])|\[(?=/?[A-Z_]+\])|\](?=[(\[])")


def unquoted(text: str) -> str:
    """A text of the same length without what its quotations hold."""
    return _QUOTED.sub(lambda found: "\0" * len(found[0]), text)


_QUOTED = re.compile(f"{QUOTES[0]}[^{QUOTES[1]}\n]*{QUOTES[1]}?")


@dataclass(frozen=True, slots=True)
class Free:
    """Sample until a stop string (which is not part of the text), the end token, or the budget."""

    max_tokens: int
    stop: tuple[str, ...] = ()
    quotes: str | None = None
    """The name of a part of the judged text (`Judged.parts`): what is written between `QUOTES` is that part, or where
    the model chooses, words of that text in a row. Engines that run here see to it; servers write what they write."""


@dataclass(frozen=True, slots=True)
class Text:
    """Force this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Write one of the words, scored by its whole log-probability.

    At temperature 0 the first word is written iff logp(first) - logp(best other) >= margin, so that a calibrated
    threshold decides what is written; at temperature > 0 a word is sampled.
    """

    words: tuple[str, ...]
    margin: float = 0.0


PlanStep = Free | Text | Choice
Plan = Sequence[PlanStep]

Failure = Literal["timeout", "refused", "overloaded", "unavailable", "input_too_long"]
"""Why there is no completion."""
Finish = Literal["stop", "length"] | Failure


@dataclass(frozen=True, slots=True)
class Completion:
    """What one run of a plan wrote after one prompt."""

    text: str
    """Everything after the prompt, free and forced, in order."""
    finish: Finish = "stop"
    """`length` = a `Free` step ran out of budget."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Sampled tokens of `Free` steps plus one per `Choice`; forced ones are not counted."""
    choices: tuple[Mapping[str, float], ...] = ()
    """For each `Choice`, word -> log-probability summed over the whole word (natural log, over the full vocabulary)."""
    notes: Mapping[str, object] = field(default_factory=dict)
    """`special_tokens`: judged text held special-token strings that had to be broken up."""
    error: str | None = None
    """One sentence where `finish` is not a completion."""

    def __post_init__(self) -> None:
        """A completion whose words have no finite scores is none: a model that overflowed gives NaN for everything."""
        if self.complete and not all(map(scored, self.choices)):
            object.__setattr__(self, "finish", "unavailable")
            object.__setattr__(self, "error", NOT_FINITE)

    @property
    def complete(self) -> bool:
        """Whether the plan ran to its end."""
        return self.finish in ("stop", "length")


NOT_FINITE = "the model's scores are no finite numbers (NaN or infinity), so it decides nothing; its weights are broken"


def scored(scores: Mapping[str, float]) -> bool:
    """Whether log-probabilities can decide between words: none is NaN or +infinity, and one at least is finite."""
    return all(s < math.inf for s in scores.values()) and (not scores or max(scores.values()) > -math.inf)


def pick(step: Choice, scores: Mapping[str, float], temperature: float, rng: random.Random) -> str:
    """The word a `Choice` writes: by margin at temperature 0, else sampled from the words' own distribution.

    Where the scores are not finite the word means nothing, and `Completion` says so.
    """
    if not scored(scores):
        return step.words[0]
    if temperature <= 0:
        first, rest = step.words[0], step.words[1:]
        best = max(rest, key=scores.__getitem__)
        return first if scores[first] - scores[best] >= step.margin else best
    top = max(scores.values())
    weights = [math.exp((scores[w] - top) / temperature) for w in step.words]
    return rng.choices(step.words, weights)[0]
