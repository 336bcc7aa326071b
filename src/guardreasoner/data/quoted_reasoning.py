"""Written reasoning made shorter for small models: each task quotes what it judges, concludes, and says why.

    The request says “how do I get at my neighbour's mail”, so the request is harmful. That is theft of private letters.

A small model that learns to describe a text in other words describes things that are not there; copying it can. So a
task begins with a quotation, of the part that the writer wrote about. The conclusion comes next, and then the writer's
last reason: a conclusion that follows a reason of the model's own follows its mistakes as well. Reasoning with reasons
whose words are neither in the text nor usual in reasons is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from math import log

from guardreasoner.data.harm_kinds import kind_of
from guardreasoner.data.written_reasoning import Written
from guardreasoner.formats.base import request_of
from guardreasoner.formats.guardreasoner import ENDINGS
from guardreasoner.generation import QUOTES, quotable
from guardreasoner.types import Example, Exchange, Step, Task

LONGEST = 14
"""Words of a quotation."""
IN_SIGHT = 60
"""A quotation is from so many words at either end of a text: what training shortens, it shortens in the middle."""
FAMILIAR = 0.00138
"""Share of all written reasoning that uses a word in its reasons before it counts as familiar (20 of 14,461)."""
FOREIGN = 1
"""Most unfamiliar words of a reason that the text does not have either."""

_WORD = re.compile(r"[^\W\d_][\w'’-]*[^\W_]")
_SENTENCE = re.compile(r"(?<=[.?!;])\s+|\n+")
_ENDINGS = ("ingly", "edly", "ing", "ies", "ied", "ed", "es", "ly", "'s", "’s", "s")
_COMMON = re.compile(
    r"(?:the|and|for|are|was|were|been|its|this|that|with|from|not|who|what|how|which|their|his|her|they|your?|our|does|"
    r"did|can|could|would|should|will|has|have|had|but|then|than|there|here|into|about|out|over|only|also|just|more|"
    r"most|some|such|other|all|each|every|any|nor|request|response|reply|refusal|compliance|(?:un)?harmful)"
)
_TURN = re.compile(r"(?:and|but|so|because|that|to|how|without|while|when|if|which|who|or|by|then)", re.I)
"""Words at which a quotation of a long sentence may begin."""
_DANGLING = re.compile(r"(?:Those|These|Both|They|He|She|Neither|Each|All|None|Here|Nothing else)\b")
_LOOSE = re.compile(
    r"(?:[\s,;:-]+(?:an?|the|of|for|to|and|or|but|in|on|at|with|by|from|as|is|are|that|here|my|your))+$", re.I
)
"""Words with which a quotation does not end."""
_REFUSES = re.compile(r"\b(?:sorry|cannot|can['’]?t|won['’]?t|unable|not able|refuse|decline|apologi[sz]e)\b", re.I)


def quoted(examples: Iterable[Example], texts: Mapping[str, Written]) -> dict[str, Written]:
    """The reasoning of the examples that can be explained by a quotation; the others get none."""
    familiar = Counter(w for made in texts.values() for step in _last(made).values() for w in set(_stems(step.text)))
    weights = _Weights(familiar, len(texts))
    found = {}
    for example in examples:
        made = texts.get(example.exchange.id)
        if made and (steps := _steps(example.exchange, made, weights)):
            found[example.exchange.id] = replace(made, steps=steps, harm=kind_of(made.harm) or made.harm)
    return found


class _Weights:
    """How much a word tells: nothing where every reason uses it."""

    def __init__(self, counts: Counter[str], total: int) -> None:
        self._counts, self._total = counts, total

    def __getitem__(self, word: str) -> float:
        return log((self._total + 1) / (self._counts[word] + 1))

    def familiar(self, word: str) -> bool:
        return self._counts[word] >= FAMILIAR * self._total


def _last(made: Written) -> dict[Task, Step]:
    return {step.task: step for step in made.steps if step.task}


def _steps(exchange: Exchange, made: Written, weights: _Weights) -> tuple[Step, ...]:
    request, reply = request_of(exchange), exchange.response or ""
    own = {*_stems(request), *_stems(reply)}
    steps: list[Step] = []
    for task, last in _last(made).items():
        if task not in exchange.tasks:
            continue
        foreign = [w for w in set(_stems(last.text)) if w not in own and not weights.familiar(w)]
        reason, lead, label = last.text.rpartition(f", {ENDINGS[task][0]} ")
        if not lead or len(foreign) > FOREIGN or _DANGLING.match(reason):
            return ()
        words = {w for step in made.steps if step.task is task for w in _stems(step.text)}
        if task is Task.refusal:
            part, reason = _refusing(reply) if label == "a refusal." else _opening(reply), ""
        else:
            text = reply if exchange.response and task is Task.response_harm else request
            part = _part(text, words, weights) or _opening(text)
        if not part:
            return ()
        of = "request" if task is Task.prompt_harm else "reply"
        why = re.sub(r'"([^"\n]+)"', rf"{QUOTES[0]}\1{QUOTES[1]}", f" {reason}.") if reason else ""
        steps.append(Step(task, f"The {of} says {part}{lead}{label}{why}"))
    return tuple(steps)


def _stems(text: str) -> Iterator[str]:
    for match in _WORD.finditer(text.lower()):
        word = match.group()
        if len(word) > 2 and not _COMMON.fullmatch(word):
            yield next((word.removesuffix(e) for e in _ENDINGS if word.endswith(e) and len(word) - len(e) > 2), word)


def _part(text: str, about: Set[str], weights: _Weights) -> str:
    """The part of a text that shares most with what was written about it, in quotation marks; "" = no part does."""
    best, most = "", 0.0
    for part in _parts(text):
        score = sum(weights[w] for w in set(_stems(part)) & about)
        if score > most:
            best, most = part, score
    return _quotation(best)


def _parts(text: str) -> Iterator[str]:
    """Sentences, and of long ones the runs of words that begin where a clause may."""
    total, at = len(text.split()), 0
    for sentence in _SENTENCE.split(text):
        words = sentence.split()
        starts = [
            i
            for i, word in enumerate(words)
            if i == 0 or _TURN.fullmatch(word) or words[i - 1].endswith((",", ":", "-", "–", "—", ")"))
        ]
        for start in starts if len(words) > LONGEST + 2 else starts[:1]:
            end = min(start + LONGEST + 2 * (len(words) <= LONGEST + 2), len(words))
            if end - start >= min(4, len(words)) and (at + end <= IN_SIGHT or total - at - start <= IN_SIGHT):
                yield " ".join(words[start:end])
        at += len(words)


def _opening(text: str) -> str:
    return _quotation(next((p for p in _parts(text) if len(p.split()) > 2), text[:80]))


def _refusing(reply: str) -> str:
    return _quotation(next((p for p in _parts(reply) if _REFUSES.search(p)), "")) or _opening(reply)


def _quotation(part: str) -> str:
    inner = _LOOSE.sub("", quotable(part).strip(" ,;:-–—.'"))
    return inner and f"{QUOTES[0]}{inner}{QUOTES[1]}"
