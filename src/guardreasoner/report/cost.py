"""The cost of runs and training (paper Table 5), how training converged (figure 7), its traces (Table 1).

Prices are given to a report, never built in: they change, and differ between model versions and providers.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from guardreasoner.data.published import find_table
from guardreasoner.errors import ConfigError, DataError
from guardreasoner.evaluate.finished_runs import Run
from guardreasoner.metrics import quantile
from guardreasoner.records import read_jsonl, read_object
from guardreasoner.types import SETTLED
from guardreasoner.yaml_files import read_yaml


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guard's answers cost."""

    guard: str
    ms_per_query: float | None
    tokens_per_query: float | None
    p50_ms: float | None
    p95_ms: float | None
    memory_gb: float | None
    queries: int | None
    where: str
    """The machine and how it was measured."""
    prompt_tokens: float | None = None
    """Tokens read per query, over all passes; None = unknown."""

    def per_1000(self, price: Price | None, per_hour: float | None) -> float | None:
        """Dollars for 1,000 queries: by the tokens where they have a price, else by the time; None = unknown."""
        if price is not None:
            if self.prompt_tokens is None or self.tokens_per_query is None:
                return None
            return (self.prompt_tokens * price.input + self.tokens_per_query * price.output) / 1000
        return None if self.ms_per_query is None or per_hour is None else self.ms_per_query / 3600 * per_hour


@dataclass(frozen=True, slots=True)
class Price:
    """What a provider asks for the tokens of one guard, in dollars per million."""

    input: float
    """Of tokens read."""
    output: float
    """Of tokens written."""
    source: str
    """Where the price stands."""
    date: str
    """When it stood there."""


def read_prices(path: str | Path) -> dict[str, Price]:
    """A YAML file of guard name to `{input, output, source, date}`."""
    try:
        content = read_yaml(path)
    except ConfigError as error:
        raise DataError(f"not a file of prices: {error}") from None
    names = [f.name for f in fields(Price)]
    found = {}
    for guard, row in content.items() if isinstance(content, dict) else [("", None)]:
        if not isinstance(row, dict) or set(row) != set(names):
            raise DataError(f"a price is `guard: {{{', '.join(names)}}}`", file=str(path), field=str(guard) or None)
        asked = [row["input"], row["output"]]
        if not all(isinstance(n, (int, float)) and not isinstance(n, bool) and n >= 0 for n in asked):
            raise DataError("prices are dollars per million tokens, not negative", file=str(path), field=str(guard))
        found[str(guard)] = Price(float(asked[0]), float(asked[1]), str(row["source"]), str(row["date"]))
    return found


def run_cost(run: Run, label: str) -> Cost | None:
    """Mean, median and 95th percentile over the rows that were judged; None = the run holds no usage."""
    usage = [c.verdict.usage for c in run.rows if c.verdict.status in SETTLED]
    times = [u.latency_ms for u in usage if u.latency_ms > 0]
    if not times:
        return None
    memory = run.manifest.get("memory_gb")
    return Cost(
        label,
        ms_per_query=sum(times) / len(times),
        tokens_per_query=sum(u.completion_tokens for u in usage) / len(usage),
        p50_ms=statistics.median(times),
        p95_ms=quantile(times, 0.95),
        memory_gb=float(memory) if memory is not None else None,
        queries=len(times),
        where="this run, in batches as evaluated",
        prompt_tokens=sum(u.prompt_tokens for u in usage) / len(usage) or None,
    )


def read_speeds(files: Sequence[str | Path]) -> list[tuple[str, Cost]]:
    """Mode and cost of each line that `bench --json` printed: calls one at a time, medians."""
    found = []
    for file in files:
        for line, row in read_jsonl(file):
            try:
                memory = row["memory_mb"] / 1000
                cost = Cost(
                    str(row["guard"]), row["p50_ms"], row["tokens"], row["p50_ms"], row["p95_ms"], memory, row["n"],
                    "`bench`, one at a time", row["prompt_tokens"] or None,
                )  # fmt: skip
                found.append((str(row["mode"]), cost))
            except (KeyError, TypeError):
                raise DataError("not a line of `guardreasoner bench --json`", file=str(file), line=line) from None
    return found


def cost_of(run: Run, label: str, speeds: Sequence[tuple[str, Cost]] = ()) -> Cost | None:
    """What `bench` measured of the run's guard, in the run's mode where it has several; else the run's own usage."""
    own = [(mode, cost) for mode, cost in speeds if cost.guard == run.guard]
    found = [cost for mode, cost in own if mode == run.mode] or [cost for _, cost in own if len(own) == 1]
    return replace(found[0], guard=label) if found else run_cost(run, label)


def published_costs() -> list[Cost]:
    """Table 5 and CoLaGuard's measurement of the same guard without batching."""
    found = []
    for table, where in (
        ("5", "paper Table 5: 1 H100, vLLM batches"),
        ("colaguard-cost", "CoLaGuard: 1 H100, unbatched"),
    ):
        for (guard, variant), cells in find_table(table).rows().items():
            if variant or cells["ms_per_query"].value is None:
                continue
            memory = cells["memory_gb"].value if "memory_gb" in cells else None
            ms, tokens = cells["ms_per_query"].value, cells["tokens_per_query"].value
            found.append(Cost(guard, ms, tokens, None, None, memory, None, where))
    return found


@dataclass(frozen=True, slots=True)
class Stage:
    """One finished stage of training."""

    folder: Path
    name: str
    hours: float | None
    rows_in: int | None
    rows_out: int | None
    table1: Mapping[str, Mapping[str, float]]
    """Of a synthesis: source, or `all`, to the paper's statistics of its traces (`teach.imported.Table1`)."""
    curve: tuple[tuple[float, float], ...] = ()
    """(step, loss) of its log."""


def read_stages(folders: Sequence[str | Path]) -> list[Stage]:
    """Stages below training folders (`DIR/<stage>/manifest.json`), in the order of their manifests."""
    found = []
    for folder in map(Path, folders):
        manifests = sorted(folder.glob("manifest.json")) + sorted(folder.glob("*/manifest.json"))
        stages = [_stage(path) for path in manifests]
        if not stages:
            raise DataError(f"{folder} holds no stage (no */manifest.json)")
        found += stages
    return found


def _stage(path: Path) -> Stage:
    content = read_object(path)
    counts = content.get("counts", {})
    seconds = content.get("seconds")
    return Stage(
        path.parent,
        str(content.get("stage") or path.parent.name),
        hours=seconds / 3600 if seconds is not None else None,
        rows_in=counts.get("in"),
        rows_out=counts.get("out"),
        table1=content.get("table1", {}),
        curve=_curve(path.parent / "log.jsonl"),
    )


def _curve(path: Path) -> tuple[tuple[float, float], ...]:
    if not path.exists():
        return ()
    rows = [row for _, row in read_jsonl(path)]
    return tuple((float(r["step"]), float(r["loss"])) for r in rows if "loss" in r and "step" in r)
