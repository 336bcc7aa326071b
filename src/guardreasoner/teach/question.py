"""What an LLM teacher is asked, and the checks that its answer must pass.

The task follows the paper's synthesis prompt (`reasoning_data_synthesis.py`, paper figure 5) in our words: all three
tasks step by step, one to ten steps each, every step the smallest unit, the true labels given, the conclusions
consistent with them. The teacher supplies labels that the data lack, as for BeaverTails in the paper.
Ours: the last step of a task names the label, a request without a reply has one task, and every answer is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.formats.base import Parsed, request_of
from guardreasoner.formats.conclusion import conclusion
from guardreasoner.types import TASKS, Example, Labels, Task, Trace
from guardreasoner.yaml_files import packaged

VERSION = "teacher-2"
"""The `prompt_version` of traces that were asked for and accepted so. Since teacher-2 a conclusion is read from
the whole last step; before, its last label word counted, and good answers were asked for again."""

MAX_STEPS = 10
"""Most steps of one task (paper's prompt)."""

Unlabelled = Literal["teacher", "skip"]

TEXTS = packaged("teach/question.yaml")


@dataclass(frozen=True, slots=True)
class TeacherAnswer:
    """The answer to one call, as stored in `answers.jsonl`."""

    id: str
    """Of the example."""
    attempt: int
    """From 1."""
    text: str
    finish: str
    """`stop`, `length`, `refused`, or `invalid`: the server would not take this request."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reject:
    """An example without a usable answer, as stored in `rejects.jsonl`."""

    id: str
    reasons: tuple[str, ...]
    attempts: int


Messages = list[dict[str, str]]


def asked(example: Example, unlabelled: Unlabelled) -> tuple[Task, ...]:
    """The tasks a teacher reasons about."""
    tasks = example.exchange.tasks
    return tasks if unlabelled == "teacher" else tuple(t for t in tasks if example.gold[t] is not None)


def messages(example: Example, unlabelled: Unlabelled = "teacher") -> Messages:
    """System and user message for one example."""
    tasks = asked(example, unlabelled)
    left = [f"Task {n}" for n, t in enumerate(TASKS, 1) if t in tasks and example.gold[t] is None]
    form = "".join(
        f"{TASKS[t].heading}\n{wire_format.STEP_HEADING} 1\n...\n{wire_format.STEP_HEADING} 2\n...\n\n" for t in tasks
    )
    answers = [f"{row.key}: {(example.gold[t] or '?') if t in tasks else 'None'}" for t, row in TASKS.items()]
    system = TEXTS["system"].format(
        questions="\n".join(TEXTS["questions"][t] for t in tasks),
        conclusions="; ".join(TEXTS["conclusions"][t] for t in tasks),
        left=TEXTS["left"].format(names=" and ".join(left)) if left else "",
        form=form.rstrip("\n"),
        answers="\n".join([wire_format.ANSWERS, *answers]),
    )
    return [{"role": "system", "content": system}, {"role": "user", "content": _conversation(example)}]


def _conversation(example: Example) -> str:
    exchange = example.exchange
    prompt = wire_format.quote(request_of(exchange))
    reply = "None" if exchange.response is None else wire_format.quote(exchange.response)
    return f"{wire_format.HUMAN}\n{prompt}\n\n{wire_format.ASSISTANT}\n{reply}\n\n"


def check(answer: TeacherAnswer, example: Example, unlabelled: Unlabelled = "teacher") -> tuple[str, ...]:
    """The problems of an answer, as phrases that can be shown to the teacher; empty = usable."""
    if answer.finish == "length":
        return ("it was cut off before its end",)
    if answer.finish in ("refused", "invalid"):
        return ({"refused": "the teacher declined", "invalid": "the server did not accept the request"}[answer.finish],)
    parsed = wire_format.parse(answer.text)
    if parsed.problem == "conflict":
        return ("the answer block says two things about one task",)
    if parsed.problem:
        return ("it has no answer block with verdicts",)
    problems: list[str] = []
    for number, task in enumerate(TASKS, 1):
        if task in asked(example, unlabelled):
            problems += [f"Task {number} {p}" for p in _task_problems(task, example.gold[task], parsed)]
    return tuple(problems)


def _task_problems(task: Task, gold: str | None, parsed: Parsed) -> list[str]:
    said = parsed.labels[task]
    if said is None:
        return ["has no verdict in the answer block"]
    if gold is not None and said != gold:
        return ["contradicts the correct answer"]
    steps = sum(1 for s in parsed.steps if s.task == task)
    if not 1 <= steps <= MAX_STEPS:
        return [f"has {steps} steps where 1 to {MAX_STEPS} are wanted"]
    concluded = conclusion(parsed.steps, task)
    if concluded is None:
        return ["does not end with its conclusion"]
    return [] if concluded == said else ["concludes something else than its verdict"]


def to_trace(answer: TeacherAnswer, example: Example, *, teacher: str, unlabelled: Unlabelled = "teacher") -> Trace:
    """The trace of an answer that passed `check`: gold kept, missing labels filled with the teacher's where asked."""
    tasks = asked(example, unlabelled)
    parsed = wire_format.parse(answer.text)
    filled: Mapping[Task, str | None] = {
        t: example.gold[t] or (parsed.labels[t] if t in tasks else None) for t in TASKS
    }
    steps = [s for s in parsed.steps if s.task in tasks]
    return Trace(replace(example, gold=Labels.of(filled)), wire_format.reasoning_text(steps), teacher, VERSION)


def next_move(
    example: Example,
    answers: Sequence[TeacherAnswer],
    *,
    teacher: str,
    attempts: int,
    unlabelled: Unlabelled = "teacher",
) -> Trace | Reject | Messages:
    """The next step for an example: its trace, its reject, or the next question.

    Args:
        answers: of this example, oldest first.
        attempts: most calls per example.
    """
    if not answers:
        return messages(example, unlabelled)
    last = answers[-1]
    problems = check(last, example, unlabelled)
    if not problems:
        return to_trace(last, example, teacher=teacher, unlabelled=unlabelled)
    if len(answers) >= attempts or last.finish == "invalid":
        return Reject(example.exchange.id, problems, len(answers))
    first = messages(example, unlabelled)
    if last.finish == "refused" or not last.text.strip():
        return first
    again = {"role": "user", "content": TEXTS["again"].format(problems="; ".join(problems))}
    return [*first, {"role": "assistant", "content": last.text}, again]
