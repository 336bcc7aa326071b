"""A finished run opened for reading: predictions, and their texts where available.

Two forms are read: our run folders (`manifest.json`, `verdicts/<Benchmark>.jsonl`) and official folders of
`<Benchmark>/generated_predictions.jsonl`. Verdict files hold no judged text; it comes from the benchmark files
(`--data`) or from the labelled file that the run was made on. Official files hold their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guardreasoner.data.benchmarks import BENCHMARKS, load_benchmark, local_file
from guardreasoner.data.labelled import parse_mapping, read_examples
from guardreasoner.data.tables import stem_of
from guardreasoner.errors import DataError
from guardreasoner.evaluate.predictions import Prediction, Predictions, read_line, read_lines, read_predictions
from guardreasoner.guards.replay import OFFICIAL, benchmark_of
from guardreasoner.records import read_object
from guardreasoner.types import TASKS, Example


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run."""

    name: str
    """The folder's name."""
    folder: Path
    guard: str
    mode: str
    """The mode asked for; `full` for official predictions."""
    benchmarks: tuple[Predictions, ...]
    manifest: Mapping[str, Any]
    """Empty for official predictions."""

    @property
    def rows(self) -> list[Prediction]:
        """Every row, benchmark by benchmark."""
        return [row for one in self.benchmarks for row in one.rows]

    @property
    def limit(self) -> int | None:
        """Rows per task of a benchmark where the run judged a sample."""
        found = self.manifest.get("config", {}).get("limit")
        return int(found) if found is not None else None


def open_run(folder: str | Path, data_dir: str | Path | None = None) -> Run:
    """Open a run folder of ours, or a folder of official predictions.

    Args:
        data_dir: folder with `benchmarks/`, for the texts.
    """
    root = Path(folder)
    manifest_path = root / "manifest.json"
    if not manifest_path.exists():
        if files := sorted(root.glob(f"*/{OFFICIAL}")) or sorted(root.glob(OFFICIAL)):
            found = tuple(read_predictions(path, benchmark_of(path), data_dir) for path in files)
            return Run(root.name, root, found[0].guard, "full", found, {})
        raise DataError(
            f"{root} holds no finished run (no manifest.json); run `guardreasoner evaluate --out {root}` first"
        )
    manifest = read_object(manifest_path)
    finished: Mapping[str, int] = manifest.get("rows", {})  # older runs do not say
    paths = [p for p in sorted((root / "verdicts").glob("*.jsonl")) if not finished or p.stem in finished]
    found = tuple(_read(path, manifest, data_dir) for path in paths)
    for one in found:
        if len(one.rows) < finished.get(one.benchmark, 0):
            raise DataError(
                f"{root} holds {len(one.rows)} of the {finished[one.benchmark]} rows of {one.benchmark}; "
                "run the same `guardreasoner evaluate` again"
            )
    guard = next((one.guard for one in found if one.guard), root.name)
    return Run(root.name, root, guard, str(manifest.get("config", {}).get("mode") or ""), found, manifest)


def _read(path: Path, manifest: Mapping[str, Any], data_dir: str | Path | None) -> Predictions:
    rows = [read_line(row, path.stem, file=str(path), line=line) for line, row in read_lines(path)]
    texts = {e.exchange.id: e for e in _examples(path.stem, manifest, data_dir)}
    rows = [
        replace(r, exchange=e.exchange, category=e.category) if (e := texts.get(r.id)) is not None else r for r in rows
    ]
    tasks = tuple(t for t in TASKS if any(r.gold[t] is not None for r in rows))
    return Predictions(path.stem, rows[0].verdict.guard, tuple(rows), tasks)


def _examples(benchmark: str, manifest: Mapping[str, Any], data_dir: str | Path | None) -> list[Example]:
    if benchmark in BENCHMARKS:
        return load_benchmark(benchmark, data_dir) if local_file(benchmark, data_dir) else []
    own = [Path(p) for p in manifest.get("inputs", {}) if stem_of(p) == benchmark]
    mapping = parse_mapping(manifest.get("config", {}).get("map"))
    return read_examples(str(own[0]), mapping) if own and own[0].exists() else []
