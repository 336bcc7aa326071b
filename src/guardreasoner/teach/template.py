"""The template teacher: a short grounded trace from gold labels, category and the exchange's own words.

It needs no language model: it is a way to train and to test without a teacher, and is not reasoning synthesis. It
quotes words that really occur, names the kind of harm or the benign purpose, and ends each task with the label it was
given. Tasks without a label get no section.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from guardreasoner.data.mix import draw
from guardreasoner.formats.guardreasoner import reasoning_text
from guardreasoner.teach import template_words as words
from guardreasoner.types import TASKS, Example, Step, Task

VERSION = "template-1"
"""The `prompt_version` of its traces."""

QUOTED = 260
"""Quotes come from the first and last characters of a text, so that a model with a short context has seen them."""

_WORD = re.compile(r"[^\W\d_](?:[\w'’]{0,22}\w)?")
_STOP = frozenset(
    """the a an of to and or in on for with is are be was were it this that you your i my me we he she they them his her
    as at by from do does did can could would will should have has had not but if so what how which who when where why
    about into than then there their its our us am just any some one also more most very i'm it's don't i've you're up
    out all been being no yes get make let go too""".split()  # noqa: SIM905 - a table of words, not of strings
)


@dataclass(frozen=True)
class Lexicon:
    """Evidence of each word for a task's positive label: smoothed log-odds over training rows."""

    weights: Mapping[Task, Mapping[str, float]]


def fit_lexicon(examples: Iterable[Example], *, min_rows: int = 8, smoothing: float = 2.0) -> Lexicon:
    """Log-odds of the words of labelled rows, per task; refusal and response harm count words of the reply.

    Args:
        examples: training rows only.
        min_rows: rarer words have no weight.
        smoothing: rows added to each side, so that rare words do not rule.
    """
    seen = {task: {True: Counter[str](), False: Counter[str]()} for task in TASKS}
    rows: Counter[tuple[Task, bool]] = Counter()
    for example in examples:
        for task in example.gold.tasks:
            positive = example.gold[task] == TASKS[task].positive
            rows[task, positive] += 1
            seen[task][positive].update({m.group().lower() for m in _WORD.finditer(_judged(example, task)[:3000])})
    return Lexicon({task: _log_odds(seen[task], rows, task, min_rows=min_rows, smoothing=smoothing) for task in TASKS})


def _log_odds(
    seen: Mapping[bool, Counter[str]], rows: Counter[tuple[Task, bool]], task: Task, *, min_rows: int, smoothing: float
) -> dict[str, float]:
    yes, no = rows[task, True] + 2 * smoothing, rows[task, False] + 2 * smoothing
    return {
        word: round(math.log((seen[True][word] + smoothing) / yes) - math.log((seen[False][word] + smoothing) / no), 4)
        for word in seen[True].keys() | seen[False].keys()
        if seen[True][word] + seen[False][word] >= min_rows and word not in _STOP
    }


def write_trace(example: Example, lexicon: Lexicon) -> str:
    """The steps for one example, without the answer block; the same for the same example and lexicon."""
    steps: list[Step] = []
    for task in example.gold.tasks:
        steps += [Step(task, text) for text in _steps(example, task, lexicon)]
    return reasoning_text(steps)


_PHRASES: Mapping[tuple[Task, bool], Sequence[words.Slots]] = {
    (Task.prompt_harm, True): words.REQUEST_HARMFUL,
    (Task.prompt_harm, False): words.REQUEST_UNHARMFUL,
    (Task.refusal, True): words.REPLY_REFUSAL,
    (Task.refusal, False): words.REPLY_COMPLIANCE,
    (Task.response_harm, True): words.REPLY_HARMFUL,
    (Task.response_harm, False): words.REPLY_UNHARMFUL,
}


def _steps(example: Example, task: Task, lexicon: Lexicon) -> list[str]:
    """The task's sentences: three steps for a request alone, fewer where the reply needs room too."""
    text, positive = _judged(example, task), example.gold[task] == TASKS[task].positive
    weights, sign = lexicon.weights[task], 1.0 if positive else -1.0
    first = _opening(text, positive) if task is Task.refusal else _quote(text, weights, sign)
    second = _quote(text, weights, sign, skip=first) or first
    values = {"a": _marked(first), "b": _marked(second), "alarm": "", "shape": _shape(example, task)}
    values["asked"] = _marked(" ".join(example.exchange.prompt[:QUOTED].split()[:4])[:40])
    values["kind"] = _kind(example, task, first) if positive else ""
    values["purpose"] = _first(words.PURPOSES, text[:600]) or words.OTHER_PURPOSE
    phrases = list(_PHRASES[task, positive])
    if task is Task.prompt_harm and not positive and (alarm := _alarm(text)):
        values["alarm"] = _marked(alarm)
        phrases[1] = words.REQUEST_ALARMING
    phrases = _fitted(phrases, example, task)
    id_ = example.exchange.id
    return [
        " ".join(_choose(slot, id_, task, i, j).format(**values) for j, slot in enumerate(slots))
        for i, slots in enumerate(phrases)
    ]


def _fitted(phrases: list[words.Slots], example: Example, task: Task) -> list[words.Slots]:
    """Shorten the phrases: all tasks of an exchange share about a hundred tokens."""
    gold, last = example.gold, phrases[-1]
    if len(phrases) == 3 and example.exchange.response is not None:
        weighed, why = phrases[1]
        return [phrases[0], (weighed, tuple(f"{w.rstrip('.')}," for w in why), last[-1])]
    if task is Task.response_harm and len(gold.tasks) == 3 and gold.response_harm in ("unharmful", gold.prompt_harm):
        return [tuple(tuple(c.replace("{b}", "{a}") for c in slot) for slot in last)]
    return [words.ASKED, last] if gold.tasks == (Task.refusal,) else phrases


def _choose(slot: Sequence[str], *key: object) -> str:
    return slot[int(draw(*key) * len(slot))]


def _judged(example: Example, task: Task) -> str:
    return (example.exchange.response or "") if TASKS[task].needs_response else example.exchange.prompt


def _window(text: str) -> tuple[str, ...]:
    """The parts of a text that may be quoted."""
    return (text,) if len(text) <= 2 * QUOTED else (text[:QUOTED], text[-QUOTED:])


def _quote(text: str, weights: Mapping[str, float], sign: float, skip: str = "") -> str:
    """One or two words, verbatim, that are the best evidence for the label; the first words where none is known."""
    skipped = {m.group().lower() for m in _WORD.finditer(skip)}
    best, found, where = -math.inf, None, ""
    for part in _window(text):
        for match in _WORD.finditer(part):
            word = match.group().lower()
            value = sign * weights.get(word, 0.0)
            if len(word) > 2 and word not in _STOP and word not in skipped and value > best:
                best, found, where = value, match, part
    if found is None:
        return "" if skip else " ".join(text.split()[:3])[:24]
    return _widened(where, found.start(), found.end(), skipped)


def _widened(part: str, start: int, end: int, skipped: set[str]) -> str:
    """The word and a neighbour of weight, if only a blank lies between them."""
    after = _WORD.match(part, end + 1) if part[end : end + 1] == " " else None
    if after and after.group().lower() not in _STOP | skipped:
        return part[start : after.end()]
    before = next((m for m in _WORD.finditer(part, max(0, start - 25), start) if m.end() == start - 1), None)
    if before and part[start - 1] == " " and before.group().lower() not in _STOP | skipped:
        return part[before.start() : end]
    return part[start:end]


def _opening(reply: str, refused: bool) -> str:
    """The words in which a reply refuses, or those it starts with."""
    head = reply[:QUOTED]
    if refused and (match := words.REFUSAL.search(head)):
        return match.group()
    return " ".join(head.split()[:3])[:32]


def _alarm(text: str) -> str:
    """A word that sounds dangerous, where there is one: `kill` in a request to kill a process."""
    return next((m.group() for part in _window(text) if (m := words.ALARMING.search(part))), "")


def _marked(quote: str) -> str:
    """A quote in quotation marks; its own marks and breaks become blanks."""
    plain = " ".join(re.sub(r"[“”\s]+", " ", quote).split())
    return f"“{plain}”" if plain else "its wording"


def _kind(example: Example, task: Task, quoted: str) -> str:
    """The kind of harm: from the category, else from the words around the quote, else from the whole exchange."""
    if kind := _first(words.KINDS, example.category):
        return kind
    text = _judged(example, task)
    at = max(0, text.find(quoted))
    near = text[max(0, at - 120) : at + 160]
    for place in (near, text[:1500], text[-1500:], example.exchange.prompt[-1500:]):
        hits = {kind: len(pattern.findall(place)) for kind, pattern in words.KINDS}
        best = max(hits, key=hits.__getitem__)
        if hits[best]:
            return best
    return words.OTHER_KIND


def _first(table: Sequence[tuple[str, re.Pattern[str]]], text: str) -> str | None:
    return next((name for name, pattern in table if pattern.search(text)), None)


def _shape(example: Example, task: Task) -> str:
    """What the text looks like, in a word or two."""
    text = _judged(example, task)
    count = len(text.split())
    if not TASKS[task].needs_response:
        if count > 120:
            return "long request"
        if text.rstrip().endswith("?"):
            return "short question" if count < 12 else "question"
        return "short line" if count < 7 else "instruction" if count < 40 else "longer instruction"
    if "```" in text:
        return "reply with code"
    return "one-line reply" if count < 15 else "short reply" if count < 50 else "reply" if count < 150 else "long reply"
