"""A finished run opened for reading: verdicts, gold, and the exchanges they are about where those are at hand.

Two forms are read: a run folder of ours (`manifest.json`, `verdicts/<Benchmark>.jsonl`), and an official folder of
`<Benchmark>/generated_predictions.jsonl`. Verdict files hold no judged text, so the exchanges come from the benchmark
files (`--data`) or from the labelled file that the run was made on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guardreasoner.data.benchmarks import BENCHMARKS, find_benchmark, load_benchmark, local_file
from guardreasoner.data.labelled import parse_mapping, read_examples
from guardreasoner.data.sources import read_input_block
from guardreasoner.data.tables import stem_of
from guardreasoner.errors import DataError, UnknownName
from guardreasoner.evaluate.run import read_run
from guardreasoner.evaluate.stored import Judged, Stored, read_stored
from guardreasoner.formats.guardreasoner import HUMAN
from guardreasoner.guards.replay import OFFICIAL, official_verdict
from guardreasoner.records import read_jsonl
from guardreasoner.types import Example, Exchange, Verdict


@dataclass(frozen=True, slots=True)
class Case:
    """One row of one run: the exchange, its gold and what the guard said."""

    benchmark: str
    row: Judged
    verdict: Verdict
    exchange: Exchange | None
    """None = its text is not at hand."""
    category: str = ""
    """The sub-set as the source names it (`adversarial`, `vanilla`, ...)."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run."""

    name: str
    """The folder's name."""
    folder: Path
    guard: str
    mode: str
    """The mode asked for; `full` for official predictions."""
    stored: tuple[Stored, ...]
    examples: Mapping[tuple[str, str], Example]
    """By benchmark and row id; lacks rows whose text is not at hand."""
    manifest: Mapping[str, Any]
    """Empty for official predictions."""

    @property
    def cases(self) -> list[Case]:
        """Every row with a verdict, benchmark by benchmark."""
        found = []
        for stored in self.stored:
            for row in stored.rows:
                example = self.examples.get((stored.benchmark, row.id))
                verdict = official_verdict(row.id, row.text or "") if row.verdict is None else row.verdict
                exchange = example.exchange if example else None
                found.append(Case(stored.benchmark, row, verdict, exchange, example.category if example else ""))
        return found


def open_run(folder: str | Path, data_dir: str | Path | None = None) -> Run:
    """Open a run folder of ours, or a folder of official predictions.

    Args:
        folder: where the run is.
        data_dir: folder with `benchmarks/`, for the texts.

    Raises:
        DataError: it is neither, or a file in it is broken.
    """
    root = Path(folder)
    if not (root / "manifest.json").exists() and (files := official_files(root)):
        return _official(root, files, data_dir)
    stored = read_run(root)
    manifest = json.loads((root / "manifest.json").read_text("utf-8"))
    guard = next((s.guard for s in stored if s.guard), root.name)
    examples = {(s.benchmark, e.exchange.id): e for s in stored for e in _examples(s.benchmark, manifest, data_dir)}
    config = manifest.get("config", {})
    return Run(root.name, root, guard, str(config.get("mode") or ""), tuple(stored), examples, manifest)


def official_files(root: Path) -> list[Path]:
    """The prediction files of an official folder, `8B/<Benchmark>/generated_predictions.jsonl`, or of one benchmark."""
    return sorted(root.glob(f"*/{OFFICIAL}")) or sorted(root.glob(OFFICIAL))


def _official(root: Path, files: Sequence[Path], data_dir: str | Path | None) -> Run:
    stored, examples = [], {}
    for path in files:
        try:
            name = find_benchmark(path.parent.name).name
        except UnknownName:
            raise DataError(
                f"must lie in a folder named after its benchmark ({', '.join(BENCHMARKS)})", file=str(path)
            ) from None
        one = read_stored(path, name, data_dir)
        guard = f"guardreasoner-{one.guard.lower()}" if one.guard.lower() in ("1b", "3b", "8b") else one.guard
        rows = [replace(r, verdict=replace(official_verdict(r.id, r.text or ""), guard=guard)) for r in one.rows]
        stored.append(replace(one, guard=guard, rows=tuple(rows)))
        for row, (line, raw) in zip(rows, read_jsonl(path), strict=True):
            block = str(raw["prompt"])
            try:
                prompt, response = read_input_block(block[block.index(f"{HUMAN}\n") :], file=str(path), line=line)
            except DataError:  # judged text that repeats the frame: nobody can say where the reply begins
                continue
            examples[name, row.id] = Example(Exchange(row.id, prompt, response, source=name), row.gold)
    return Run(root.name, root, stored[0].guard, "full", tuple(stored), examples, {})


def _examples(benchmark: str, manifest: Mapping[str, Any], data_dir: str | Path | None) -> list[Example]:
    if benchmark in BENCHMARKS:
        return load_benchmark(benchmark, data_dir) if local_file(benchmark, data_dir) else []
    own = [Path(p) for p in manifest.get("inputs", {}) if stem_of(p) == benchmark]
    mapping = parse_mapping(manifest.get("config", {}).get("map"))
    return read_examples(str(own[0]), mapping) if own and own[0].exists() else []
