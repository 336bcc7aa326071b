"""A report on disk.

OUT/report.html      one self-contained page: no script, no external resource, judged text escaped and veiled
OUT/report.md        the tables and sentences, without judged text; figures beside it
OUT/figures/*.svg
OUT/report.json      the numbers of the tables
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from guardreasoner.records import dumps, write_atomic
from guardreasoner.report.content import document
from guardreasoner.report.findings import Report
from guardreasoner.report.markdown import render_markdown
from guardreasoner.report.page import render_html


def write_report(report: Report, out: str | Path) -> list[Path]:
    """Write the page, the Markdown, the figures and the numbers; returns the paths."""
    folder, said = Path(out), document(report)
    content: dict[str, str | bytes] = {
        "report.html": render_html(said),
        "report.md": render_markdown(said),
        "report.json": dumps(numbers(report)) + "\n",
        **{f"figures/{name}.svg": svg for name, svg in report.figures.items()},
    }
    for name, text in content.items():
        write_atomic(folder / name, text)
    return [folder / name for name in content]


def numbers(report: Report) -> dict[str, Any]:
    """The numbers of the tables as plain values."""
    return {
        "title": report.title,
        "made": report.made,
        "version": report.version,
        "tables": [
            {
                "task": table.task.value,
                "columns": list(table.columns),
                "apart": list(table.apart),
                "rows": dict(table.rows),
                "all_positive": sorted(table.all_positive),
                "lines": [asdict(line) for line in table.lines],
            }
            for table in report.standings.tables
        ],
        "at_a_glance": [asdict(g) for g in report.glances],
        "operating_points": [asdict(p) for p in report.points],
        "twins": [asdict(t) for t in report.twins],
        "stability": {guard: [asdict(s) for s in found] for guard, found in report.stability.items()},
        "comparisons": [asdict(c) | {"sentence": c.sentence} for c in report.standings.comparisons],
        "exploratory": [asdict(c) for c in report.standings.looks],
        "scores": [asdict(s) for c in report.contestants for s in c.scores.values()],
        "slices": [asdict(s) for s in report.slices],
        "costs": [asdict(c) for c in report.costs],
        "relabelled": [asdict(r) for r in report.relabelled],
        "notes": list(report.notes),
    }
