"""HS-DPO: train on weighted preferences of hard samples (paper section 3.3).

Reads `mine/preferences.jsonl` and the R-SFT checkpoint, which is both start and reference; writes `dpo/checkpoint`,
curves and a manifest. Reference log-probabilities are computed once, before training, and kept in `dpo/rows`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from guardreasoner.errors import ConfigError, DataError, need
from guardreasoner.records import Counts, RunFolder, from_dict
from guardreasoner.train.models import ModelConfig, best_attention, load_checkpoint, read_meta
from guardreasoner.train.rows import RowMaker
from guardreasoner.train.settings import RESUMABLE, TrainingConfig, rank, world_size
from guardreasoner.types import Exchange, Preference


@dataclass(frozen=True)
class DpoConfig(TrainingConfig):
    """HS-DPO; defaults of `train/HS-DPO_{1b,3b,8b}.sh`."""

    learning_rate: float = 5e-6
    """`--learning_rate 5e-6`."""
    epochs: float = 2.0
    """`--num_train_epochs 2.0`."""
    batch: int = 256
    """Pairs per optimizer step over all devices (1 x 64 accumulation x 4 GPUs)."""
    micro_batch: int = 1
    """Pairs per pass and device (`--per_device_train_batch_size 1`)."""
    beta: float = 0.01
    """`--pref_beta 0.01`."""
    sft_weight: float = 2.0
    """`--pref_ftx 2.0`: weight of the mean token loss of the chosen answer."""
    weight_sft: bool = False
    """Whether alpha also scales the SFT term; the paper's equation puts it before the DPO term, the patch that applies
    it was never released."""
    use_weights: bool = True
    """False = every alpha is 1: plain DPO, as stock LLaMA-Factory ignores `sample_weight`."""
    reference: Literal["precomputed", "live"] = "precomputed"
    """When the reference's log-probabilities are computed."""
    start: str | None = None
    """Checkpoint to start from; None = the run's `sft/checkpoint`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.liger:
            raise ConfigError("dpo.liger is refused: its fused loss knows no weights per pair")
        if self.keep == "best" or self.validate_every:
            raise ConfigError("dpo validates nothing while it trains; leave out dpo.keep and dpo.validate_every")
        if self.beta <= 0 or self.sft_weight < 0:
            raise ConfigError("dpo.beta must be more than 0, and dpo.sft_weight not less")


class Pair(TypedDict):
    """One preference in tokens."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    weight: float
    length: int


def pairs_of(preferences: Iterable[Preference], maker: RowMaker, config: DpoConfig, counts: Counts) -> Iterator[Pair]:
    """Preferences as tokens; prompt and longer answer share `max_tokens`, and what cannot is counted."""
    for preference in preferences:
        counts.in_ += 1
        chosen, rejected = maker.completion(preference.chosen), maker.completion(preference.rejected)
        longer = max(len(chosen), len(rejected))
        exchange = from_dict(Exchange, preference.prompt)
        _, prompt, _ = maker.fit(exchange, config.max_tokens - longer)
        if len(prompt) + longer > config.max_tokens:
            counts.drop("too_long")
            continue
        counts.out += 1
        weight = preference.weight if config.use_weights else 1.0
        yield Pair(
            prompt_ids=prompt,
            chosen_ids=chosen,
            rejected_ids=rejected,
            weight=weight,
            length=len(prompt) + longer,
        )


def run_dpo(
    config: DpoConfig,
    model: ModelConfig,
    *,
    out: str | Path,
    stage: str = "dpo",
    mined: str = "mine",
    fresh: bool = False,
) -> dict[str, Any] | None:
    """Train; returns the manifest (in the first process), or None in the others.

    Args:
        config, model: what to do.
        out: the run's folder.
        stage: name of the folder to write.
        mined: name of the folder that holds `preferences.jsonl`.
        fresh: start over.

    Raises:
        DataError: there are no preferences or no checkpoint.
        RunFolderError: the folder is in use, or was made with another configuration.
    """
    need("trl", "train")
    root = Path(out)
    preferences, start = root / mined / "preferences.jsonl", Path(config.start or root / "sft" / "checkpoint")
    if not preferences.exists():
        raise DataError("no preferences yet; run `guardreasoner mine` first", file=str(preferences))
    if not (start / "config.json").exists():
        raise DataError("no checkpoint to start from; run `guardreasoner sft` first", file=str(start))
    if rank():
        _train(config, model, root / stage, preferences, start, None)
        return None
    asked = {**asdict(config), "model": asdict(model)}
    inputs = [preferences, start]
    with RunFolder(out, stage, config=asked, inputs=inputs, fresh=fresh, resumable_keys=RESUMABLE) as run:
        return run.manifest or _train(config, model, root / stage, preferences, start, run)


def _train(
    config: DpoConfig, model_config: ModelConfig, folder: Path, preferences: Path, start: Path, run: RunFolder | None
) -> dict[str, Any] | None:
    from guardreasoner.train import dpo_trainer, sft_trainer
    from guardreasoner.train import trainer as training

    if run is not None:
        training.drop_torn(folder / "trainer", run)
    arguments = training.arguments(config, folder / "trainer")
    began = time.monotonic()
    model, tokenizer = load_checkpoint(start, attention=model_config.attention or best_attention())
    training.check_disk(folder, model, config)
    maker = RowMaker(
        tokenizer, model_config.wire, config.max_tokens, judged_tokens=config.judged_tokens, seed=config.seed
    )
    rows, about = dpo_trainer.prepare(config, maker, preferences, folder / "rows")
    trainer = dpo_trainer.build(model, tokenizer, arguments, config=config, rows=rows, run=run)
    metrics = training.train(trainer, folder / "trainer")
    meta = {**read_meta(start), "stage": "dpo"}
    sft_trainer.save(trainer, tokenizer, folder / "checkpoint", meta=meta, merge=config.lora is not None)
    if run is None:
        return None
    shutil.rmtree(folder / "trainer", ignore_errors=True)
    shutil.rmtree(folder / "rows", ignore_errors=True)
    seconds = time.monotonic() - began
    return run.finish(
        about["counts"],
        tokens=about["tokens"],
        steps=trainer.state.global_step,
        processes=world_size(),
        device_hours=round(seconds * world_size() / 3600, 4),
        peak_memory_bytes=training.peak_memory_bytes(),
        train_loss=metrics.get("train_loss"),
    )
