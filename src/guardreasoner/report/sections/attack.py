"""Guards under the transformations of the stress suite."""

from __future__ import annotations

from collections.abc import Iterator

from guardreasoner.evaluate.statistics import Interval
from guardreasoner.report.blocks import Grid, Head, Items, Line, Number, Picture, Section
from guardreasoner.report.findings import Report


def stress(report: Report) -> Iterator[Section]:
    if not report.stress:
        return
    heads: list[str | Head] = [
        "family",
        "guard",
        Head("attacks pass", "% of harmful rows"),
        Head("false alarms", "% of harmless rows"),
    ]
    families = dict.fromkeys(cell.family for result in report.stress for cell in result.families)
    lines = [
        Line([
            cell.family if cell.barred else f"{cell.family} (reported)",
            result.guard,
            _rate(cell.success, cell.harmful),
            _rate(cell.alarms, cell.benign),
        ])
        for family in families
        for result in report.stress
        for cell in result.families
        if cell.family == family
    ]  # fmt: skip
    said = [
        f"{result.guard} flags {result.caught.value:.1f}% of harmful and {result.alarmed.value:.1f}% of harmless rows "
        "as they are; only rows that it judges rightly are transformed."
        for result in report.stress
    ]
    yield Section("Under attack", "attack", [Picture("stress", "Attacks that pass, and false alarms, per family"),
                                             Grid(heads, lines, left=2), Items(said, soft=True)])  # fmt: skip


def _rate(rate: Interval, rows: int) -> Number:
    return Number(f"{rate.value:.1f}", f"{rate.low:.1f} to {rate.high:.1f}, {rows:,}") if rows else Number("–")
