"""`guardreasoner benchmarks`: the 13 cells, which of them have their data here, and where to get the others."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from guardreasoner.cli.options import add_data
from guardreasoner.cli.show_scores import NAMES
from guardreasoner.cli.tables import print_json, show, table_of
from guardreasoner.data.benchmarks import BENCHMARKS, Benchmark, Cell, data_folder, local_file


def add(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per cell")


def run(args: argparse.Namespace) -> int:
    folder = data_folder(args.data)
    cells = [(b, c) for b in BENCHMARKS.values() for c in b.cells]
    if args.json:
        print_json(_row(benchmark, cell, folder) for benchmark, cell in cells)
        return 0
    table = table_of("benchmark", "task", "rows", "harmful", "paper", "licence", "at hand", words=2, last_words=2,
                     folds=("licence", "at hand"))  # fmt: skip
    for benchmark, cell in cells:
        table.add_row(
            benchmark.name, NAMES[cell.task], _count(cell.n), _count(cell.positives), _count(cell.paper_n),
            benchmark.source.licence, _where(benchmark, folder),
        )  # fmt: skip
    show(
        table,
        f"{len(cells)} cells. harmful = rows with the positive label (harmful, refusal)",
        "paper = the count that the paper prints and weights its averages by",
        "everyday (evaluate --benchmark everyday) comes with the package; it is ours, not the paper's",
        *_advice(folder),
        wrap=False,
    )
    return 0


def _count(n: int | None) -> str:
    return "?" if n is None else f"{n:,}"


def _where(benchmark: Benchmark, folder: Path | None) -> str:
    if folder is not None:
        return "yes" if local_file(benchmark.name, folder) else "no, gated" if benchmark.source.gated else "no"
    return "hub, gated" if benchmark.source.gated else "GitHub" if benchmark.source.url else "hub"


def _advice(folder: Path | None) -> list[str]:
    if folder is None:
        gated = dict.fromkeys(b.source.page for b in BENCHMARKS.values() if b.source.gated)
        return [
            "rows come from the hub (extra `data`); --data DIR reads the official files DIR/benchmarks/0_*.json"
        ] + [f"gated: accept the terms at {page}, then set HF_TOKEN" for page in gated]
    absent = [b for b in BENCHMARKS.values() if local_file(b.name, folder) is None]
    return [
        f"{b.name}: put {b.file} into {folder / 'benchmarks'}"
        + (f" (gated: accept the terms at {b.source.page})" if b.source.gated else f" (from {b.source.page})")
        for b in absent
    ]


def _row(benchmark: Benchmark, cell: Cell, folder: Path | None) -> dict[str, Any]:
    source = benchmark.source
    return {
        "benchmark": benchmark.name,
        "task": cell.task.value,
        "rows": cell.n,
        "positives": cell.positives,
        "paper_rows": cell.paper_n,
        "repo": source.repo,
        "config": source.config,
        "split": source.split or None,
        "revision": source.revision,
        "file": benchmark.file,
        "gated": source.gated,
        "licence": source.licence,
        "note": source.note,
        "local": str(path) if (path := local_file(benchmark.name, folder) if folder else None) else None,
    }
