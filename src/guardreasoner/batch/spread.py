"""A batch run over Ray Data, for inputs too large for one machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from guardreasoner.batch.files import SPLITTABLE, Portion
from guardreasoner.batch.run import Opener, Runner, judge_portion
from guardreasoner.data.tables import suffix_of
from guardreasoner.errors import ConfigError, need

COLUMNS = ("start", "end", "line", "rows", "skip", "texts")
"""A portion as a row of a Ray data set; its `source` and `columns` are the same for all."""


def run_on_ray(workers: int = 2) -> Runner:
    """A runner in which every worker of Ray Data holds a guard; lines come back in order.

    The input must be readable under the same path wherever a worker runs.
    """

    def run(left: Iterator[Portion], opener: Opener) -> Iterator[tuple[Portion, list[str]]]:
        rest = list(left)
        if not rest:
            return
        if suffix_of(rest[0].source) not in SPLITTABLE:
            raise ConfigError("--runner ray cuts .jsonl or .parquet into portions; turn the input into one of them")
        data = _start_ray()
        items = [{"number": i, **{k: v for k, v in asdict(p).items() if k in COLUMNS}} for i, p in enumerate(rest)]
        judged = data.from_items(items, override_num_blocks=len(items)).map_batches(
            RayJudge,
            batch_size=1,
            compute=data.ActorPoolStrategy(size=workers),
            fn_constructor_kwargs={"source": rest[0].source, "columns": rest[0].columns, "opener": opener},
        )
        early: dict[int, list[str]] = {}
        expected = 0
        for row in judged.iter_rows():
            early[int(row["number"])] = row["lines"].split("\n")
            while expected in early:
                yield rest[expected], early.pop(expected)
                expected += 1

    return run


class RayJudge:
    """One worker: a guard, and the portions it is given."""

    def __init__(self, source: str, columns: Mapping[str, str], opener: Opener) -> None:
        self.source, self.columns, self.guard = source, columns, opener()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The lines of each portion, as one text."""
        written = []
        for start, end, line, rows, skip, texts in zip(*(batch[k].tolist() for k in COLUMNS), strict=True):
            portion = Portion(self.source, start, end, line, rows, skip, texts, self.columns)
            written.append("\n".join(line for chunk in judge_portion(portion, self.guard) for line in chunk))
        return {"number": batch["number"], "lines": written}


def _start_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send usage reports
    ray, data = need("ray", "ray"), need("ray.data", "ray")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    context = data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    return data
