"""k answers per example from one or several models: what hard samples are mined from (paper section 3.3).

Reads `synthesize/traces.jsonl` for the examples; writes `sample/samples.jsonl`, one row per example and model:

    {"example_id": ..., "model": ..., "temperature": ..., "texts": [k texts], "finish": [k reasons]}

The main model and, for an ensemble, the diversity models each write k answers. A killed run continues with the examples
that have none yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from guardreasoner.data.mix import draw
from guardreasoner.engines.base import Engine
from guardreasoner.errors import ConfigError, DataError, EngineError
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.generation import Free, Plan, Text
from guardreasoner.records import Appender, read_records
from guardreasoner.run_folder import Counts, RunFolder
from guardreasoner.types import TASKS, Example, Task, Trace


@dataclass(frozen=True)
class SampleConfig:
    """How answers are sampled."""

    models: tuple[str, ...] = ("sft",)
    """Who samples: `sft`, names of the recipe's variants, folders or hub ids. More than one = an ensemble."""
    k: int = 4
    """Answers per example and model (`n_generate.py`: n = 4)."""
    temperature: float = 0.7
    """0.7 in the code (`n_generate.py`), 1.0 in the paper's appendix."""
    max_tokens: int = 2048
    """Budget of the reasoning (`n_generate.py`: max_tokens 2048)."""
    engine: str = "hf"
    """vllm (n = k in one request), hf or onnx."""
    forced: bool = False
    """Reasoning up to max_tokens, then the answer block forced and its words drawn; False = one free text (code)."""
    only_trained_on: bool = False
    """Let a variant sample only the sources it was trained on, as `merge_hard_sample.py` does."""
    limit: int | None = None
    """Number of examples to sample, chosen by seed; None = all."""
    chunk: int = 512
    """Examples per call of the engine; a kill loses at most one call."""
    seed: int = 42

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("sample.models must name a model")
        if self.k > 1 and self.temperature <= 0:
            raise ConfigError("sample.temperature 0 writes the same answer k times; the code uses 0.7, the paper 1.0")


class Opener(Protocol):
    """Opens a model by the name that the recipe gives it."""

    def __call__(self, name: str) -> tuple[Engine, wire_format.Wire]:
        """The engine that runs it, and the wire it was trained on."""
        ...


def plan_for(tasks: Sequence[Task], config: SampleConfig) -> Plan:
    """What is written after each prompt. Forced plans end with all three lines, as free ones do when trained."""
    if not config.forced:
        return (Free(config.max_tokens),)
    full = wire_format.plan("full", tasks, budget=config.max_tokens)
    rest = "".join(f"\n{row.key}: None" for task, row in TASKS.items() if task not in tasks)
    return (*full, Text(f"{rest}\n"))


def run_sample(
    config: SampleConfig,
    *,
    out: str | Path,
    open_model: Opener,
    trained_on: Mapping[str, frozenset[str]] | None = None,
    checkpoints: Sequence[Path] = (),
    fresh: bool = False,
) -> dict[str, Any]:
    """Sample; returns the manifest.

    Args:
        open_model: gives engine and wire for each of `config.models`.
        trained_on: for `only_trained_on`, the sources of each variant that leaves some out.
        checkpoints: the folders of models that sample, as far as they are folders; another content is another run.
    """
    traces = Path(out) / "synthesize" / "traces.jsonl"
    if not traces.exists():
        raise DataError("no examples yet; run `guardreasoner synthesize` first", file=str(traces))
    asked = asdict(config) | {"trained_on": {name: sorted(sources) for name, sources in (trained_on or {}).items()}}
    inputs = [traces, *checkpoints]
    with RunFolder(out, "sample", config=asked, inputs=inputs, fresh=fresh, resumable_keys=("chunk",)) as run:
        if run.manifest:
            return run.manifest
        examples = choose(traces, config)
        counts, by_model = Counts(), {}
        with Appender(run.path / "samples.jsonl") as rows:
            done = {(row["example_id"], row["model"]) for row in rows.existing}
            counts.in_ = len(examples) * len(config.models)
            counts.out = len(done)
            for name in config.models:
                mine = examples
                if config.only_trained_on and trained_on and name in trained_on:
                    mine = [e for e in examples if e.exchange.source in trained_on[name]]
                    counts.drop("not_trained_on", len(examples) - len(mine))
                todo = [e for e in mine if (e.exchange.id, name) not in done]
                if todo:
                    _sample_one(name, todo, config, open_model, rows, counts, run)
                by_model[name] = len(mine)
        return run.finish(counts, models=by_model, k=config.k)


def choose(traces: Path, config: SampleConfig) -> list[Example]:
    """The examples to sample, one per id; a seeded choice where `limit` says so."""
    examples = {t.example.exchange.id: t.example for t in read_records(Trace, traces)}
    ids = sorted(examples, key=lambda i: draw(config.seed, "sample", i))
    return [examples[i] for i in ids[: config.limit]]


def _sample_one(
    name: str, todo: Sequence[Example], config: SampleConfig, open_model: Opener, rows: Appender, counts: Counts,
    run: RunFolder,
) -> None:  # fmt: skip
    engine, wire = open_model(name)
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True))
    todo_bar = bar.add_task(f"sample {name}", total=len(todo))
    bar.start()
    try:
        for tasks in dict.fromkeys(e.exchange.tasks for e in todo):
            plan = plan_for(tasks, config)
            group = [e for e in todo if e.exchange.tasks == tasks]
            for start in range(0, len(group), config.chunk):
                chunk = group[start : start + config.chunk]
                prompts = [wire_format.render(e.exchange, wire) for e in chunk]
                answers = engine.run(prompts, plan, n=config.k, temperature=config.temperature)
                asked = [c for completions in answers for c in completions if c.finish != "input_too_long"]
                if asked and not any(c.complete for c in asked):  # texts that do not fit are no fault of the model
                    raise EngineError(f"{name}: no answer of a whole call could be sampled ({asked[0].error})")
                for example, completions in zip(chunk, answers, strict=True):
                    row = {
                        "example_id": example.exchange.id,
                        "model": name,
                        "temperature": config.temperature,
                        "texts": [c.text for c in completions if c.complete],
                        "finish": [c.finish for c in completions],
                    }
                    rows.append(row)
                    counts.out += 1
                run.tick()
                bar.advance(todo_bar, len(chunk))
    finally:
        bar.stop()
        engine.close()
