"""The types that every part of the package shares: exchanges, verdicts, and what training stages hand to each other.

All are frozen dataclasses. `records` turns them into JSON lines and back; a field has the same name everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal, NamedTuple, get_args

Harm = Literal["harmful", "unharmful"]
Refusal = Literal["refusal", "compliance"]
Mode = Literal["instant", "short", "full", "auto"]
FailMode = Literal["closed", "open"]
Rule = Literal["strict", "official"]
Status = Literal[
    "ok", "unread", "truncated", "input_too_long", "unparsed", "refused", "timeout", "overloaded", "unavailable"
]  # fmt: skip

MODES: tuple[Mode, ...] = get_args(Mode)
STATUSES: tuple[Status, ...] = get_args(Status)
SETTLED: frozenset[Status] = frozenset(("ok", "unread"))
"""Verdicts that hold labels: of `unread` text they are a best guess. Asking again would not change them."""


class Task(StrEnum):
    """One of the three guardrail tasks (paper section 2)."""

    prompt_harm = "prompt_harm"
    """Is the request harmful? `harmful` or `unharmful`."""
    refusal = "refusal"
    """Does the reply refuse? `refusal` or `compliance`."""
    response_harm = "response_harm"
    """Is the reply harmful? `harmful` or `unharmful`."""


class TaskRow(NamedTuple):
    """What is particular to one task."""

    positive: str
    """The label that F1 counts and that a guard exists to find."""
    negative: str
    """The other label."""
    key: str
    """The task's key in the answer block."""
    needs_response: bool
    """Whether the question makes sense only when there is a reply."""
    heading: str
    """The task's heading in the reasoning."""
    decisive: str
    """The label that one of several answers on parts of an exchange gives to the whole."""


TASKS: dict[Task, TaskRow] = {
    Task.prompt_harm: TaskRow("harmful", "unharmful", "Request", False, "# Task 1", "harmful"),
    Task.refusal: TaskRow("refusal", "compliance", "Completion", True, "# Task 2", "compliance"),
    Task.response_harm: TaskRow("harmful", "unharmful", "Response", True, "# Task 3", "harmful"),
}


@dataclass(frozen=True, slots=True)
class Message:
    """One earlier turn of a conversation."""

    role: str
    """`assistant`, or who spoke to it: `user`, `system`, `developer`, `tool`, `function`."""
    content: str
    """What was said, as text."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and, if there is one, the reply: all that a guard may see. It never carries gold labels."""

    id: str
    """What its verdict is found by."""
    prompt: str
    """The user's request; may be empty when there is a reply."""
    response: str | None = None
    """The AI's reply; None = there is only a request."""
    context: tuple[Message, ...] = ()
    """Earlier messages, oldest first."""
    source: str = ""
    """Where the exchange comes from, for reports."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that make sense for this exchange."""
        return tuple(t for t, row in TASKS.items() if self.response is not None or not row.needs_response)

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is judged: the request, the reply ("" where there is none), and earlier messages."""
        return self.prompt, self.response or "", *(m.content for m in self.context)

    @property
    def characters(self) -> int:
        """Of all that is judged."""
        return sum(map(len, self.texts))


@dataclass(frozen=True, slots=True)
class Labels:
    """One set of answers; None = not asked or not annotated. `labels[task]` reads one."""

    prompt_harm: Harm | None = None
    """Is the request harmful?"""
    refusal: Refusal | None = None
    """Does the reply refuse?"""
    response_harm: Harm | None = None
    """Is the reply harmful?"""

    def __post_init__(self) -> None:
        for task, row in TASKS.items():
            value = getattr(self, task)
            if value not in (None, row.positive, row.negative):
                raise ValueError(f"{task} must be {row.positive!r}, {row.negative!r} or null")

    def __getitem__(self, task: Task | str) -> str | None:
        return getattr(self, Task(task).value)  # type: ignore[no-any-return]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that have an answer."""
        return tuple(t for t in TASKS if self[t] is not None)

    @property
    def harmful(self) -> bool:
        """Whether the request or the reply is harmful: what is flagged where no policy says otherwise."""
        return "harmful" in (self.prompt_harm, self.response_harm)

    @classmethod
    def of(cls, answers: Mapping[Any, str | None]) -> Labels:
        """Labels from a mapping of task (name) to answer; absent tasks are None.

        Raises:
            ValueError: a task has an answer that it cannot have.
        """
        return cls(**{Task(k).value: v for k, v in answers.items()})  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, str | None]:
        """All three answers by task name."""
        return {t.value: self[t] for t in TASKS}


@dataclass(frozen=True, slots=True)
class Example:
    """An exchange whose answers are known."""

    exchange: Exchange
    """What a guard sees."""
    gold: Labels
    """The right answers."""
    category: str = ""
    """The kind of harm or the sub-set, as the source names it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One reasoning-SFT record: what a teacher wrote about an example."""

    example: Example
    reasoning: str
    """The steps, without the answer block; empty = the example is trained on its labels only."""
    teacher: str
    """Model name, or `template`."""
    prompt_version: str
    """Version of the teacher's instruction."""
    block: str | None = None
    """What follows the reasoning in a published answer, byte for byte; None = our answer block of the gold labels."""


@dataclass(frozen=True, slots=True)
class Step:
    """One reasoning step."""

    task: Task | None
    """The task of the heading above it; None = before any heading."""
    text: str
    """One sentence or a few, as the model wrote them."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one verdict cost."""

    prompt_tokens: int = 0
    """Tokens read, over all passes."""
    completion_tokens: int = 0
    """Sampled tokens; forced ones are not counted."""
    latency_ms: float = 0.0
    """Milliseconds; of a batch, its share."""
    passes: int = 0
    """Model passes: more than 1 for windows, several forms of one text, or an escalation."""

    def __add__(self, more: Usage) -> Usage:
        """What two passes over one exchange cost together."""
        return Usage(
            self.prompt_tokens + more.prompt_tokens,
            self.completion_tokens + more.completion_tokens,
            self.latency_ms + more.latency_ms,
            self.passes + more.passes,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """One guard's answer on one exchange."""

    exchange_id: str
    """The `id` of what was judged."""
    guard: str
    """The name of the guard."""
    mode: str
    """`instant` = nothing was written, whoever judged; `notes["guards"]` names who did."""
    status: Status
    """Only `ok` is a verdict. `unread` = the text holds what the guard cannot read (another language, or symbols): its
    labels and scores are a best guess, of which only harm counts."""
    labels: Labels = field(default_factory=Labels)
    """None with status `ok` = this guard does not do that task, or it was not asked."""
    scores: Mapping[str, float | None] = field(default_factory=lambda: dict.fromkeys(t.value for t in TASKS))
    """Per task P(harmful | refusal) in [0, 1]; None = not asked or unknown."""
    calibrated: bool = False
    """Whether `scores` are calibrated probabilities."""
    harm: str | None = None
    """The kind of harm in free text, as the steps name it."""
    kinds: Mapping[str, float] = field(default_factory=dict)
    """P of each kind of harm (`data/harm_kinds.yaml`), in every mode; empty = the guard has no head for kinds."""
    attack: float | None = None
    """P that the text tries to steer a model; None = the guard has no such head."""
    flagged: bool = False
    """After policy thresholds and fail mode; policy never rewrites `labels`."""
    fail_mode: FailMode | None = None
    """What became of what was not judged: `closed` = held back, `open` = let through. None = it was judged."""
    steps: tuple[Step, ...] = ()
    """The reasoning that led to the verdict."""
    text: str = ""
    """What the model wrote, whole."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """`guards`: who judged, in order; `escalated`: the tasks that the last of them decided; `escalation_denied` and
    `escalation_failed`: why a further guard has no say; `disagreement`: {task: what the model that reasons answers}
    where that is not the label; `unread`: why a part was not judged (`timeout`, `input_too_long`); `disguise`,
    `language`, `windows`, `parts`, `mode`, ..."""
    usage: Usage = field(default_factory=Usage)
    """What it cost."""
    error: str | None = None
    """One sentence, or None."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasoning steps as text, in order."""
        return tuple(step.text for step in self.steps)

    def __bool__(self) -> bool:
        """Refused, since nobody could tell what `if verdict` means: harmful, harmless, or judged at all?

        Raises:
            TypeError: always.
        """
        raise TypeError("a verdict is neither true nor false; ask verdict.flagged, or verdict.status == 'ok'")


@dataclass(frozen=True, slots=True)
class Preference:
    """One HS-DPO record (paper section 3.3)."""

    example_id: str
    task: Task
    """The task on which the two answers differ."""
    prompt: Mapping[str, Any]
    """The exchange as a mapping; the trainer renders it in its model's wire."""
    chosen: str
    rejected: str
    wrong: int
    """Samples with a wrong answer."""
    right: int
    """Samples with a right answer."""
    weight: float
    """alpha = 1 + Norm(wrong - right, gamma)."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Which models wrote the two answers, temperature, rule."""


@dataclass(frozen=True, slots=True)
class Score:
    """One cell of a table; never without `n` and `unparsed`. Percentages are unrounded."""

    benchmark: str
    task: Task
    guard: str
    rule: Rule
    f1: float
    precision: float
    recall: float
    n: int
    """Rows of the cell."""
    unparsed: int
    """Rows whose answer could not be read."""
    ci: tuple[float, float] | None = None
    """95% interval of F1."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """auroc, auprc, fpr, ece, constant_f1, scored, dropped, doubled, ..."""


@dataclass(frozen=True, slots=True)
class Review:
    """One human correction of one exchange's labels."""

    exchange_id: str
    reviewer: str
    labels: Labels
    note: str
    at: str
    """ISO 8601, UTC."""


def field_names(kind: type[Any]) -> tuple[str, ...]:
    """The field names of a record, in order."""
    return tuple(f.name for f in fields(kind))
