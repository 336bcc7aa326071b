"""How a report prints numbers."""

from __future__ import annotations

from guardreasoner.evaluate.compare import of_p
from guardreasoner.evaluate.statistics import Interval
from guardreasoner.report.blocks import Number
from guardreasoner.report.figures import NAMES as TASK_NAMES

__all__ = ["TASK_NAMES", "fixed", "interval", "p_value", "span"]


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
