"""How a report prints numbers, and what it calls the tasks."""

from __future__ import annotations

from guardreasoner.evaluate.compare import of_p
from guardreasoner.evaluate.statistics import Interval
from guardreasoner.report.blocks import Number
from guardreasoner.types import Task

TASK_NAMES = {Task.prompt_harm: "Prompt harm", Task.refusal: "Refusal", Task.response_harm: "Response harm"}


def fixed(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def span(low: float | None, high: float | None, digits: int = 1) -> str:
    """An interval."""
    return "" if low is None or high is None else f"{low:,.{digits}f}–{high:,.{digits}f}"


def interval(found: Interval | None, digits: int = 1) -> str | Number:
    """An estimate with its interval in small print."""
    return "–" if found is None else Number(fixed(found.value, digits), span(found.low, found.high, digits))


def p_value(p: float) -> str:
    """A p in a table."""
    return of_p(p).removeprefix("= ")
