"""Speed and cost of a guard: latency of single calls, throughput in batches, tokens, memory."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from guardreasoner.errors import ConfigError
from guardreasoner.metrics import quantile
from guardreasoner.types import Exchange, Verdict

WARM_UP = 3
"""Exchanges judged before the clock runs: the first ones pay for caches and threads."""


@dataclass(frozen=True, slots=True)
class Speed:
    """One guard in one mode."""

    mode: str
    p50_ms: float
    """Median latency of one exchange at a time."""
    p95_ms: float
    cpu_ms: float
    """Median CPU time of one exchange, all threads together: what is left of the truth on a busy machine."""
    short_p50_ms: float | None
    """Median over exchanges of at most 60 prompt tokens; None = there was none."""
    per_second: float
    """Exchanges a second in batches."""
    batch_cpu_ms: float
    """CPU time per exchange in batches."""
    batch: int
    tokens: float
    """Sampled tokens per exchange."""
    prompt_tokens: float
    """Prompt tokens per exchange."""
    ok: int
    """Exchanges with a verdict."""
    n: int


def measure(
    judge: Callable[[Sequence[Exchange]], list[Verdict]], exchanges: Sequence[Exchange], *, mode: str, batch: int = 32
) -> Speed:
    """Time a guard: every exchange by itself, then all of them in batches.

    Args:
        judge: exchanges to verdicts, in one mode.
        exchanges: at least one; each is judged twice.
        batch: exchanges that are judged together.
    """
    if not exchanges:
        raise ConfigError("there is nothing to measure on; give exchanges")
    judge(exchanges[:WARM_UP])
    single, cpu, verdicts = [], [], []
    for exchange in exchanges:
        begun, burnt = time.perf_counter(), time.process_time()
        verdicts += judge([exchange])
        single.append((time.perf_counter() - begun) * 1000)
        cpu.append((time.process_time() - burnt) * 1000)
    begun, burnt = time.perf_counter(), time.process_time()
    for start in range(0, len(exchanges), batch):
        judge(exchanges[start : start + batch])
    seconds, batch_cpu = time.perf_counter() - begun, time.process_time() - burnt
    short = [ms for ms, v in zip(single, verdicts, strict=True) if 0 < v.usage.prompt_tokens <= 60]
    return Speed(
        mode=mode,
        p50_ms=statistics.median(single),
        p95_ms=quantile(single, 0.95),
        cpu_ms=statistics.median(cpu),
        short_p50_ms=statistics.median(short) if short else None,
        per_second=len(exchanges) / seconds,
        batch_cpu_ms=batch_cpu * 1000 / len(exchanges),
        batch=batch,
        tokens=statistics.fmean(v.usage.completion_tokens for v in verdicts),
        prompt_tokens=statistics.fmean(v.usage.prompt_tokens for v in verdicts),
        ok=sum(v.status == "ok" for v in verdicts),
        n=len(exchanges),
    )


def peak_memory_mb() -> float:
    """The most memory this process has held, in MB (10^6 bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says begins with the memory of the process that started this one
        line = next((row for row in status.read_text().splitlines() if row.startswith("VmHWM:")), "")
        if line:
            return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def as_row(name: str, speed: Speed, *, memory_mb: float, load_s: float) -> dict[str, Any]:
    """One contestant's line as plain values."""
    return {"guard": name, **asdict(speed), "memory_mb": round(memory_mb, 1), "load_s": round(load_s, 3)}
