"""The text of a report: its sections in reading order, written once for Markdown and HTML."""

from __future__ import annotations

from guardreasoner.report.blocks import Document, Items, Section
from guardreasoner.report.findings import Report
from guardreasoner.report.sections import attack, deciding, details, scores


def document(report: Report) -> Document:
    """The whole report in the order in which it is read."""
    runs = f"{len(report.contestants)} run{'' if len(report.contestants) == 1 else 's'}"
    sections = [
        *deciding.glance(report),
        scores.means(report),
        *(scores.task(report, table) for table in report.standings.tables),
        *deciding.points(report),
        *deciding.twins(report),
        *deciding.stability(report),
        *attack.stress(report),
        details.curves(report),
        *details.slices_and_labels(report),
        *details.exhibits(report),
        details.cost(report),
        details.published_elsewhere(),
        Section("Notes", "notes", [Items([*report.notes, _SOURCES], soft=True)]),
    ]
    lead = f"{runs}, made {report.made[:16].replace('T', ' ')} UTC with guardreasoner {report.version}."
    return Document(report.title, lead, _warnings(report), sections, report.figures)


_SOURCES = (
    "Published numbers in the tables per task: GuardReasoner (arXiv 2501.18492v2), Qwen3Guard (arXiv 2510.14276), "
    "CoLaGuard (arXiv 2605.29068); each as printed."
)


def _warnings(report: Report) -> list[str]:
    if not report.samples:
        return []
    named = ", ".join(f"{c.label} ({c.run.limit} rows per task of a benchmark)" for c in report.samples)
    return [
        f"Samples, not whole benchmarks: {named}. Their numbers are rough, they take no place beside full runs and "
        "published numbers, and each says how many rows it is over."
    ]
