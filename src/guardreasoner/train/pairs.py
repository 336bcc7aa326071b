"""One pair of a right and a wrong answer per example, and its weight: the rules of mining, as pure functions.

`official` is the released rule (`hard_sample_mining.py`): first match of `Request:\\s*(\\w+)` anywhere in the text, any
other word than the label's is wrong, an answer that lacks one of the three fields is left out, the fields are tried in
the order Request, Response, Completion, and the chosen answer need be right in the one task only. `ours`, the default,
reads the last answer block; it wants the chosen answer right in every annotated task, and its reasoning to conclude
what it answers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.formats.conclusion import conclusion
from guardreasoner.generation import segments_of
from guardreasoner.types import TASKS, Task, Trace

Rule = Literal["ours", "official"]

UNREAD, RIGHT, WRONG = 0, 1, 2
"""What one answer says on one task."""
PRIORITY = (Task.prompt_harm, Task.response_harm, Task.refusal)
"""The order in which the released rule looks for a disagreement: Request, Response, Completion."""
_FIELDS = {task: re.compile(rf"{row.key}:\s*(\w+)") for task, row in TASKS.items()}
_REPLY = re.compile(r"AI assistant:\s*(\w+)")
_NUMBER = {task: number for number, task in enumerate(TASKS)}


Marks = tuple[int, int, int]
"""UNREAD, RIGHT or WRONG for each task, in the order of the answer block."""


class Sampled(NamedTuple):
    """What is kept of one answer."""

    marks: Marks
    length: int
    """Characters."""


class PickedPair(NamedTuple):
    """One pair, as indices into the answers of its example."""

    task: Task
    chosen: int
    rejected: int
    wrong: int
    right: int


class Gold(NamedTuple):
    """What an example's answers are compared with."""

    words: tuple[str, str, str]
    """The label words in the order of the answer block; `None` if there is none."""
    tasks: tuple[Task, ...]
    """The tasks on which a pair may be made, in order of priority."""


def gold_of(trace: Trace, rule: Rule) -> Gold | None:
    """What the rule compares answers with; None where the released rule skips the example."""
    example = trace.example
    if rule == "ours":
        words = tuple(example.gold[task] or "None" for task in TASKS)
        return Gold(words, tuple(t for t in PRIORITY if example.gold[t]))  # type: ignore[arg-type]
    text = wire_format.learned(trace)
    found = [_FIELDS[task].search(text) for task in TASKS]
    if not all(found):
        return None
    words = tuple(match.group(1) for match in found if match)
    asked = _REPLY.search("".join(s.text for s in segments_of(wire_format.render(example.exchange))))
    replied = asked is None or asked.group(1) != "None"
    later = tuple(t for t in PRIORITY[1:] if replied and words[_NUMBER[t]] != "None")
    return Gold(words, (Task.prompt_harm, *later))  # type: ignore[arg-type]


def marks_official(text: str, words: Sequence[str]) -> Marks | None:
    """The released reading of one answer; None = it lacks a field and is left out."""
    found = [pattern.search(text) for pattern in _FIELDS.values()]
    if not all(found):
        return None
    marks = [RIGHT if m and m.group(1) == word else WRONG for m, word in zip(found, words, strict=True)]
    return (marks[0], marks[1], marks[2])


def marks_ours(text: str, words: Sequence[str]) -> Marks | None:
    """Our reading of one answer, by its last answer block; None = no annotated task can be read from it."""
    labels, _ = wire_format.read_labels(text)
    said = (labels.prompt_harm, labels.refusal, labels.response_harm)
    marks = [
        UNREAD if word == "None" or label is None else RIGHT if label == word else WRONG
        for label, word in zip(said, words, strict=True)
    ]
    return (marks[0], marks[1], marks[2]) if any(marks) else None


def is_sound(text: str, tasks: Sequence[Task]) -> bool:
    """Whether what the reasoning of an answer concludes about some tasks, where it can be read, is what it answers."""
    parsed = wire_format.parse(text)
    said = {task: conclusion(parsed.steps, task) for task in tasks}
    return all(word is None or word == parsed.labels[task] for task, word in said.items())


def pick_pair(
    samples: Sequence[Sampled],
    gold: Gold,
    *,
    rule: Rule,
    choose: Callable[[Sequence[int]], int],
    hardest: bool = False,
    sound: Callable[[int], bool] = lambda _: True,
) -> PickedPair | str:
    """One pair of an example's answers, or the reason why there is none.

    Args:
        samples: the readable answers, in order.
        gold: what they were compared with, and the tasks to look at.
        rule: `ours` also wants the chosen answer right in every annotated task.
        choose: picks one of some indices.
        sound: whether the reasoning of an answer concludes what it answers; `ours` chooses no other.
        hardest: of the tasks with right and wrong answers take the one with most wrong ones, not the first.
    """
    annotated = [_NUMBER[t] for t in gold.tasks]
    split = unsound = False
    found: list[PickedPair] = []
    for task in gold.tasks:
        number = _NUMBER[task]
        right = [i for i, s in enumerate(samples) if s.marks[number] == RIGHT]
        wrong = [i for i, s in enumerate(samples) if s.marks[number] == WRONG]
        if not right or not wrong:
            continue
        split = True
        fit = right
        if rule == "ours":
            whole = [i for i in right if all(samples[i].marks[n] == RIGHT for n in annotated)]
            fit = [i for i in whole if sound(i)]
            unsound = unsound or len(fit) < len(whole)
        if fit:
            found.append(PickedPair(task, choose(fit), choose(wrong), len(wrong), len(right)))
            if not hardest:
                break
    if found:
        return max(found, key=lambda pair: pair.wrong - pair.right)
    if split:
        return "reasoning_disagrees" if unsound else "none_right_in_all"
    if not samples:
        return "unreadable"
    rights = any(s.marks[_NUMBER[t]] == RIGHT for s in samples for t in gold.tasks)
    wrongs = any(s.marks[_NUMBER[t]] == WRONG for s in samples for t in gold.tasks)
    return "mixed" if rights and wrongs else "all_right" if rights else "all_wrong"


def longest(samples: Sequence[Sampled]) -> Callable[[Sequence[int]], int]:
    """Chooses the longest answer; of equally long ones the first."""
    return lambda indices: max(indices, key=lambda i: samples[i].length)


def at_random(seed: int, example_id: str) -> Callable[[Sequence[int]], int]:
    """Chooses at random, the same in every run."""
    lot = random.Random(f"{seed}:{example_id}")
    return lambda indices: indices[lot.randrange(len(indices))]


def weigh(differences: Sequence[int], gamma: float) -> list[float]:
    """alpha of each pair from wrong - right, spread over [1 - gamma, 1 + gamma]; all alike = 1."""
    low, high = min(differences, default=0), max(differences, default=0)
    if low == high:
        return [1.0] * len(differences)
    return [1 + (d - low) * gamma * 2 / (high - low) - gamma for d in differences]
