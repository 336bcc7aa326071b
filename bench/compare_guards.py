"""One table: runs of `evaluate` beside published guards on the same cells, weighted and macro F1, AUROC and FPR.

    python bench/compare_guards.py RUN [RUN ...] --data DATA [--published gpt-4o,llama-guard-3-8b,...]

F1 weighted by rows with its 95% interval (whole prompts resampled; published guards have none), macro F1, macro AUROC
and FPR weighted by rows, as request / refusal / reply.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from guardreasoner.evaluate.contestants import contestants
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.report.tables import Standing, standings
from guardreasoner.types import TASKS, Task

PUBLISHED = "gpt-4o,llama-guard-3-8b,wildguard,qwen3guard-gen-0-6b,guardreasoner-1b"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--published", default=PUBLISHED)
    args = parser.parse_args()
    entrants = contestants([open_run(run, args.data) for run in args.runs])
    measured = {e.label: averages(run) for e, run in zip(entrants, args.runs, strict=True)}
    found = {table.task: {line.name: line for line in table.lines} for table in standings(entrants).tables}
    constant = next(line.name for line in found[next(iter(TASKS))].values() if line.kind == "constant")
    print("| guard | weighted F1 | macro F1 | AUROC | FPR |\n|---|---|---|---|---|")
    for name in (constant, *measured, *args.published.split(",")):
        lines = [found.get(task, {}).get(name) for task in TASKS]
        own = measured.get(name, {})
        auroc = [own.get(task, {}).get("macro_auroc") for task in TASKS]
        fpr = [own.get(task, {}).get("weighted_fpr") for task in TASKS]
        print(f"| {name} | {joined([weighted(line) for line in lines])} | "
              f"{joined([number(line.macro if line else None, 1) for line in lines])} | "
              f"{joined([number(x, 3) for x in auroc])} | {joined([number(x, 1) for x in fpr])} |")  # fmt: skip


def averages(run: Path) -> dict[Task, dict[str, float | None]]:
    """What `evaluate` kept of each task."""
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    return {Task(row["task"]): row for row in manifest["averages"]}


def weighted(line: Standing | None) -> str:
    """Weighted F1, with its interval where there is one."""
    if line is None or line.mean is None:
        return "–"
    interval = f" ({line.mean.low:.1f} to {line.mean.high:.1f})" if line.mean.low is not None else ""
    return f"{line.mean.value:.1f}{interval}"


def number(value: float | None, digits: int) -> str:
    """One number, or that there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def joined(cells: list[str]) -> str:
    """Request / refusal / reply; one dash where nothing is known."""
    return "–" if set(cells) == {"–"} else " / ".join(cells)


if __name__ == "__main__":
    main()
