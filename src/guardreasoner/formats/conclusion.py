"""What the reasoning on one task concludes, read from its words.

Guards write their conclusions freely ("is unharmful as it holds no harmful intent", "does not refuse but complies"), so
the last label word says little. Versioned with `formats.guardreasoner`: traces are accepted and pairs chosen by it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from guardreasoner.formats.base import label as label_of
from guardreasoner.types import TASKS, Step, Task

_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_QUOTED = re.compile(r"“[^”\n]*\s[^”\n]*”")
"""More than a word of judged text: a refusal in it is not the guard's."""
_KEYED = re.compile(r"^\W*(?:(Request|Completion|Response)|Conclusion\b[^:]{0,20})\W*:\W*([A-Za-z]+)\W*$", re.I)
_ASKS = re.compile(
    r"\bwhether\b|\b(?:determine|consider|assess|evaluate|check|see|analy[sz]e|identify)\b[^.]*\bif\b"
    r"|\b(?:un)?harmful or (?:un)?harmful\b|\brefusal or (?:a )?compliance\b|\bcompliance or (?:a )?refusal\b"
    r"|\bcompl(?:y|ies|ied) (?:with )?or refuse[sd]?\b"
    r"|\b(?:may|might|could|would) (?:still )?be (?:\w+ly )?(?:\w+ as |considered |deemed )?(?:un)?harmful",
    re.I,
)
_NEGATION = re.compile(
    r"\b(?:not|no|never|nor|neither|cannot|rather than|instead of)\b|n['’]t\b|\b(?:fails?|refus\w+|declin\w+) to\b",
    re.I,
)
_JUDGED = re.compile(
    r"\b(?:is|are|was|were|be|being|as|remains?|considered|deemed|it|request|response|and|but|both|to be)\b"
    r"[\"'“”*:,]*\s+((?:\w+ly\s+|not\s+|an?\s+|the\s+|considered\s+|therefore\s+|thus\s+)*)[\"'“*]*(unharmful|harmless|harmful)\b"
    r"(?!\s+(?!request|response|prompt|query|as|because|since|and|in|to|for|under|due|given|by|with|or|despite|on)[a-z])",
    re.I,
)
_REFUSED = re.compile(
    r"\b(refus(?:al|es?|ed|ing)|declin(?:es?|ed|ing)|complian(?:ce|t)|compl(?:y|ies|ied|ying))\b", re.I
)
_ABOUT = re.compile(
    r"\b(request|prompt|query|question|input|user)\b|\b(response|reply|completion|assistant|output)\b", re.I
)
_WINDOW = 32
"""Characters before a judgement in which a negation turns it round; further back it is about something else."""


def conclusion(steps: Sequence[Step], task: Task) -> str | None:
    """The label that the last step of a task states, or None where it states none or leaves it open.

    Read backwards sentence by sentence: a sentence that only asks ("determine whether ...", "harmful or unharmful")
    says nothing; one about the other text says nothing; in the rest the first judgement counts, turned round when it is
    negated. What remains unclear is None, never a guess.
    """
    own = [s.text for s in steps if s.task == task]
    return stated(own[-1], task) if own else None


def stated(text: str, task: Task) -> str | None:
    """The label that a passage states about one task, or None."""
    bare = _QUOTED.sub("", text)
    for sentence in reversed([s.strip() for s in _SENTENCE.split(bare) if s and s.strip()]):
        if keyed := _KEYED.match(sentence):
            word = keyed.group(2).lower()
            own = keyed.group(1) is None or keyed.group(1).title() == TASKS[task].key
            if own and word in (TASKS[task].positive, TASKS[task].negative):
                return word
            continue
        if _ASKS.search(sentence):
            continue
        label = _refusal(sentence) if task is Task.refusal else _harm(sentence, task)
        if label is not None:
            return label
    return None


def _harm(sentence: str, task: Task) -> str | None:
    about = _ABOUT.search(sentence)
    if about is not None and (about.group(2) is not None) != (task is Task.response_harm):
        return None
    found = _JUDGED.search(sentence)
    if found is None:
        return None
    before = sentence[max(0, found.start() - _WINDOW) : found.start()] + " " + found.group(0)[: -len(found.group(2))]
    positive = (found.group(2).lower() == "harmful") != (_NEGATION.search(_clause(before)) is not None)
    return label_of(task, positive)


def _refusal(sentence: str) -> str | None:
    found = _REFUSED.search(sentence)
    if found is None:
        return None
    before = _clause(sentence[max(0, found.start() - _WINDOW) : found.start()])
    turned = _NEGATION.search(before) is not None or before.rstrip().endswith("without")
    refuses = found.group(1).lower().startswith(("refus", "declin")) != turned
    return label_of(Task.refusal, refuses)


def _clause(text: str) -> str:
    """The end of a text after its last clause boundary."""
    return re.split(r"[,;:]|\b(?:as|because|since|but|which|that|while|although)\b(?=.*\w)", text)[-1] or text


def names_harm(text: str) -> bool:
    """Whether a text holds a word that would be read as a conclusion."""
    return "harmful" in text.lower() or "harmless" in text.lower()
