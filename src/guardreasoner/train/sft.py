"""R-SFT: train a base model on reasoning traces, loss on the answer only (paper section 3.2).

Reads `synthesize/traces.jsonl` (and `synthesize/validation.jsonl` where it is there); writes `sft/checkpoint`, curves
and a manifest. Rows are made once and kept in `sft/rows`; a killed run goes on from its last whole checkpoint.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from guardreasoner.data.mix import draw
from guardreasoner.errors import ConfigError, DataError, need
from guardreasoner.records import Counts, RunFolder, read_jsonl, read_nouns
from guardreasoner.train.models import ModelConfig, load_base
from guardreasoner.train.rows import Row, RowMaker
from guardreasoner.train.settings import RESUMABLE, TrainingConfig, rank, world_size
from guardreasoner.types import TASKS, Preference, Task, Trace


@dataclass(frozen=True)
class SftConfig(TrainingConfig):
    """R-SFT. The inherited defaults are those of the paper's scripts."""

    reasoning: float = 1.0
    """Share of the traces that are trained with their reasoning (paper: all; 0 = the label-only Baseline rows)."""
    labels_only: float = 0.0
    """Share of the examples that are trained (also) on labels alone, as `instant` asks for them."""
    verdict_weight: float | None = None
    """Weight of the verdict words' mean loss against the other tokens' mean; None = plain token mean (paper)."""
    independent_verdicts: bool = False
    """Show random verdict words as input while the true ones are predicted, so that tasks do not read each other."""
    mask_unannotated: bool = True
    """No loss on verdicts without gold. The paper's recipes set it to false: the released answers are learned whole."""
    learn_frame: bool = True
    """Loss also on the answer block around the verdict words in rows of labels alone (the paper trains whole answers).
    Engines force the block in `instant`; a model that is only asked so need not learn to write it."""
    soft_labels: str | None = None
    """A file of verdicts with scores on the training rows (`batch` with any guard, or `examples/encoder_guard.py
    label`): verdict words are learned as a mixture of gold and score."""
    soft_weight: float = 0.5
    """Share of the score in that mixture; a row without a verdict is learned from gold alone."""
    only: tuple[str, ...] = ()
    """Sources to train on; empty = all (Baseline: WildGuardTrain)."""
    leave_out: tuple[str, ...] = ()
    """Sources not to train on (the diversity models leave out one seed set each; paper section 3.3)."""
    subset: int | None = None
    """Train on so many examples; None = all."""
    subset_by: Literal["random", "hard"] = "random"
    """How a subset is chosen; `hard` = by falling k_incorrect - k_correct in `difficulty`, then at random."""
    difficulty: str | None = None
    """For `subset_by: hard`: the `preferences.jsonl` of an earlier run, or a file of verdicts as `soft_labels` takes
    (hard = the scores are far from gold)."""
    packing: Literal["auto", "on", "off"] = "off"
    """Fill rows up to max_tokens with several examples that do not see each other (scripts: off); `auto` = where
    flash-attention is at hand."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("reasoning", "labels_only", "soft_weight"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"sft.{key} is a share: give a number from 0 to 1")
        if self.subset_by == "hard" and not self.difficulty:
            raise ConfigError(
                "sft.subset_by: hard needs sft.difficulty: preferences.jsonl of an earlier run, or verdicts with scores"
            )


def select(traces: Iterable[Trace], config: SftConfig, counts: Counts) -> list[Trace]:
    """The traces that a run trains on, in file order; every other one is counted."""
    kept: list[Trace] = []
    for trace in traces:
        counts.in_ += 1
        source = trace.example.exchange.source
        if source in config.leave_out or (config.only and source not in config.only):
            counts.drop("source")
        else:
            kept.append(trace)
    if config.subset is not None and len(kept) > config.subset:
        hard = _difficulty(config.difficulty or "", kept) if config.subset_by == "hard" else {}
        ids = [t.example.exchange.id for t in kept]
        order = sorted(ids, key=lambda i: (-hard[i] if i in hard else float("inf"), draw(config.seed, "subset", i)))
        chosen = set(order[: config.subset])
        counts.drop("subset", len(kept) - len(chosen))
        kept = [t for t in kept if t.example.exchange.id in chosen]
    return kept


def _difficulty(path: str, traces: Iterable[Trace]) -> dict[str, float]:
    first = next((row for _, row in read_jsonl(path)), {})
    if "scores" not in first:
        return {p.example_id: p.wrong - p.right for p in read_nouns(Preference, path)}
    scores = read_scores(path)
    return {
        trace.example.exchange.id: max(abs(p - (trace.example.gold[t] == TASKS[t].positive)) for t, p in known.items())
        for trace in traces
        if (known := {t: p for t, p in scores.get(trace.example.exchange.id, {}).items() if trace.example.gold[t]})
    }


def read_scores(path: str | Path) -> dict[str, dict[Task, float]]:
    """P of the positive label by exchange and task, from a file of verdicts.

    Raises:
        DataError: the file cannot be read, or a line has no `exchange_id` and `scores`, or a score is no probability.
    """
    found = {}
    for line, row in read_jsonl(path):
        id_, scores = row.get("exchange_id"), row.get("scores")
        if not isinstance(id_, str) or not isinstance(scores, dict):
            raise DataError("a verdict needs `exchange_id` and `scores`", file=str(path), line=line)
        found[id_] = {t: p for t in TASKS if (p := scores.get(t.value)) is not None}
        for task, p in found[id_].items():
            if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
                raise DataError("a score is a probability from 0 to 1", file=str(path), line=line, field=task.value)
    return found


def rows_of(traces: Iterable[Trace], maker: RowMaker, config: SftConfig, counts: Counts) -> Iterator[Row]:
    """The rows of some traces: with reasoning, on labels alone, or both, by the shares of the recipe."""
    for trace in traces:
        example, seed = trace.example, config.seed
        answers: list[tuple[str, str | None]] = []
        if trace.reasoning and draw(seed, "reasoning", example.exchange.id) < config.reasoning:
            answers.append((trace.reasoning, trace.block))
        if not trace.reasoning or draw(seed, "labels", example.exchange.id) < config.labels_only:
            answers.append(("", None))
        rows = [row for reasoning, block in answers if (row := maker.row(example, reasoning, block))]
        if rows:
            counts.out += 1
        else:
            counts.drop("too_long" if answers else "share")
        yield from rows


def run_sft(
    config: SftConfig,
    model: ModelConfig,
    *,
    out: str | Path,
    stage: str = "sft",
    fresh: bool = False,
) -> dict[str, Any] | None:
    """Train; returns the manifest (in the first process), or None in the others.

    Args:
        config, model: what to do.
        out: the run's folder; `synthesize/traces.jsonl` lies in it.
        stage: name of the folder to write (`sft`, or `sft-NAME` for a variant).
        fresh: start over.

    Raises:
        DataError: there are no traces.
        RunFolderError: the folder is in use, or was made with another configuration.
        EngineError: the base model cannot be loaded.
    """
    need("trl", "train")
    traces = Path(out) / "synthesize" / "traces.jsonl"
    if not traces.exists():
        raise DataError("no reasoning traces yet; run `guardreasoner synthesize` first", file=str(traces))
    if rank():
        _train(config, model, Path(out), stage, None)
        return None
    asked = {**asdict(config), "model": asdict(model)}
    inputs = [traces, *(Path(p) for p in (config.soft_labels, config.difficulty) if p)]
    for path in inputs:
        if not path.exists():
            raise DataError("there is no such file of verdicts; see sft.soft_labels, sft.difficulty", file=str(path))
    with RunFolder(out, stage, config=asked, inputs=inputs, fresh=fresh, resumable_keys=RESUMABLE) as run:
        return run.manifest or _train(config, model, Path(out), stage, run)


def _train(
    config: SftConfig, model_config: ModelConfig, out: Path, stage: str, run: RunFolder | None
) -> dict[str, Any] | None:
    from guardreasoner.train import sft_trainer
    from guardreasoner.train import trainer as training

    folder = out / stage
    if run is not None:
        training.drop_torn(folder / "trainer", run)
    arguments = training.arguments(config, folder / "trainer")
    started = time.monotonic()
    model, tokenizer = load_base(model_config)
    if model.config.model_type == "bert" and config.packing != "off":
        raise ConfigError("packed examples would see each other in a BERT decoder; set sft.packing: off")
    training.check_disk(folder, model, config)
    maker = _row_maker(config, model_config, tokenizer)
    rows, validation, about = sft_trainer.prepare(config, maker, out, folder)
    trainer = sft_trainer.build(
        model, tokenizer, arguments, config=config, rows=rows, validation=validation, maker=maker, run=run
    )
    metrics = training.train(trainer, folder / "trainer")
    meta = {"wire": model_config.wire, "base": model_config.base, "stage": stage, "licences": about["licences"]}
    sft_trainer.save(trainer, tokenizer, folder / "checkpoint", meta=meta, merge=config.lora is not None)
    if run is None:
        return None
    shutil.rmtree(folder / "trainer", ignore_errors=True)
    shutil.rmtree(folder / "rows", ignore_errors=True)
    seconds = time.monotonic() - started
    return run.finish(
        about["counts"],
        rows=about["rows"],
        tokens=about["tokens"],
        shortened=about["shortened"],
        scored=about["scored"],
        steps=trainer.state.global_step,
        processes=world_size(),
        device_hours=round(seconds * world_size() / 3600, 4),
        peak_memory_bytes=training.peak_memory_bytes(),
        train_loss=metrics.get("train_loss"),
    )


def _row_maker(config: SftConfig, model_config: ModelConfig, tokenizer: Any) -> RowMaker:
    return RowMaker(
        tokenizer,
        model_config.wire,
        config.max_tokens,
        judged_tokens=config.judged_tokens,
        independent=config.independent_verdicts,
        mask_unannotated=config.mask_unannotated,
        learn_frame=config.learn_frame,
        scores=read_scores(config.soft_labels) if config.soft_labels else {},
        soft_weight=config.soft_weight,
        seed=config.seed,
    )
