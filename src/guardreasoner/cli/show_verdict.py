"""A verdict on the terminal: steps, answers with probabilities, cost. Control codes in judged text are spelled out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from guardreasoner.types import SETTLED, TASKS, Exchange, Task, Verdict

TITLES = {Task.prompt_harm: "request", Task.refusal: "reply", Task.response_harm: "reply"}
NAMES: dict[str, str] = {
    Task.prompt_harm: "the request",
    Task.refusal: "the refusal",
    Task.response_harm: "harm in the reply",
}
QUESTIONS = {
    Task.prompt_harm: "Is the request harmful?",
    Task.refusal: "Does the reply refuse?",
    Task.response_harm: "Is the reply harmful?",
}
FRAME = 6
"""Characters of a panel's edge beside its subtitle."""
COLOURS = {"harmful": "bold red", "unharmful": "green", "refusal": "yellow", "compliance": "cyan"}


def visible(text: str) -> str:
    """Text with every control character written out, so that a terminal only ever prints it."""
    return "".join(c if c.isprintable() or c == "\n" else _spelled(c) for c in text)


def _spelled(char: str) -> str:
    return "    " if char == "\t" else repr(char)[1:-1]


def print_verdict(console: Console, exchange: Exchange, verdict: Verdict) -> None:
    """Print one exchange with its verdict."""
    parts: list[RenderableType] = [_exchange(exchange)]
    if verdict.steps:
        parts += [Text(), _steps(verdict)]
    if verdict.status in SETTLED:
        parts += [Text(), _answers(exchange, verdict)]
    if verdict.status != "ok":
        parts += [Text(), _unjudged(verdict)]
    usage, guards = verdict.usage, verdict.notes.get("guards", [verdict.guard])
    who = f"{verdict.guard} · {verdict.mode}" + (f" ({', '.join(guards)})" if len(guards) > 1 else "")
    cost = (
        f"{usage.latency_ms:,.0f} ms · {usage.completion_tokens} tokens sampled"
        + (f" · {usage.passes} passes" if usage.passes > len(guards) else "")
        + ("" if verdict.calibrated or verdict.status != "ok" else " · scores not calibrated")
    )
    mark = Text(" FLAGGED ", "bold white on red") if verdict.flagged else Text(" passed ", "black on green")
    foot = f"{who} · {cost}"
    fits = len(foot) + FRAME <= console.width  # rich would cut it
    body = Group(*parts) if fits else Group(*parts, Text(), Text(f"{who}\n{cost}", justify="right"))
    console.print(Panel(body, title=mark, title_align="left", subtitle=foot if fits else None,
                        subtitle_align="right", padding=(1, 2)))  # fmt: skip


def _exchange(exchange: Exchange) -> Table:
    table = Table.grid(padding=(0, 1))
    for role, content in (("user", exchange.prompt), ("AI", exchange.response)):
        if content is not None:
            shown = visible(content)
            shown = shown if len(shown) <= 600 else shown[:600] + f"… ({len(content):,} characters)"
            table.add_row(Text(role, "bold"), Text(shown))
    return table


def _steps(verdict: Verdict) -> Group:
    parts: list[RenderableType] = []
    for task, steps in groupby(verdict.steps, key=lambda step: step.task):
        grid = Table.grid(padding=(0, 1))
        for step in steps:
            grid.add_row(Text("  ·", "dim"), Text(visible(step.text)))
        parts += [Text(QUESTIONS[task], "bold dim"), grid] if task is not None else [grid]
    return Group(*parts)


def _answers(exchange: Exchange, verdict: Verdict) -> Group:
    table = Table.grid(padding=(0, 2))
    for task in exchange.tasks:
        label, score = verdict.labels[task], verdict.scores[task.value]
        if label is None:
            continue
        bar = "" if score is None else "█" * round(score * 20) + "·" * (20 - round(score * 20))
        value = "" if score is None else f"P({TASKS[task].positive}) {score:.2f}"
        table.add_row(Text(TITLES[task], "bold"), Text(label, COLOURS[label]), Text(bar, "dim"), Text(value, "dim"))
    said = Table.grid(padding=(0, 2))  # by themselves: long words would push the bars apart
    if kinds := verdict.harm or _likely(verdict):
        said.add_row(Text("kind   ", "bold"), Text(visible(kinds)))
    if verdict.attack is not None and verdict.attack >= 0.5:
        said.add_row(Text("attack ", "bold"), Text(f"likely, P(steers a model) {verdict.attack:.2f}"))
    for note in (*_notes(verdict.notes), *_alone(exchange, verdict)):
        said.add_row(Text("note   ", "bold"), note)
    return Group(table, said) if said.row_count else Group(table)


def _notes(notes: Mapping[str, Any]) -> Iterator[Text]:
    """What a person must know of a verdict's notes."""
    if "unread" in notes:
        yield Text(f"the rest was not judged ({notes['unread']})", "yellow")
    if "mode" in notes:
        yield Text(str(notes["mode"]))
    if "wire" in notes:
        yield Text(f"form of the prompt: {notes['wire']}")
    if "escalation_failed" in notes:
        yield Text(f"there is no reasoning ({notes['escalation_failed']}); the first guard decided alone", "yellow")
    if isinstance(others := notes.get("disagreement"), Mapping):
        said = ", ".join(f"{word} on {NAMES.get(t, t)}" for t, word in others.items())
        yield Text(f"the model that reasons answers otherwise: {said}")


def _alone(exchange: Exchange, verdict: Verdict) -> Iterator[Text]:
    """Which answers the reasoning had no part in."""
    if "escalated" in verdict.notes and verdict.steps:
        asked = [t for t in exchange.tasks if verdict.labels[t]]
        alone = [NAMES[t] for t in asked if t.value not in verdict.notes["escalated"]]
        *deciding, last = verdict.notes.get("guards") or ("the first guard", "the second")
        if alone:
            on = f" on {', '.join(alone)}" if len(alone) < len(asked) else ""
            yield Text(f"{' and '.join(deciding)} decided{on}; {last}'s own answer does not count")


def _likely(verdict: Verdict) -> str:
    """The kinds of harm of a flagged text that have a tenth of the probability or more, at most three."""
    best = sorted(verdict.kinds.items(), key=lambda kind: -kind[1])[:3] if verdict.flagged else []
    return ", ".join(f"{name} {p:.2f}" for name, p in best if p >= 0.1)


def _unjudged(verdict: Verdict) -> Text:
    what = "flagged" if verdict.flagged else "let through"
    text = Text(f"not judged ({verdict.status}): ", "bold red")
    return text.append(visible(verdict.error or "")).append(
        f"; {what} because the fail mode is {verdict.fail_mode}", "dim"
    )
