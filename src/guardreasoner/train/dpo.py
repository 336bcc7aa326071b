"""HS-DPO: train on weighted preferences of hard samples (paper section 3.3).

Reads `mine/preferences.jsonl` and the R-SFT checkpoint, which is both start and reference; writes `dpo/checkpoint`,
curves and a manifest. Reference log-probabilities are computed once, before training, and kept in `dpo/rows`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from guardreasoner.errors import ConfigError, DataError, need
from guardreasoner.run_folder import RunFolder
from guardreasoner.train.models import ADAPTER, load_checkpoint, read_meta, save_trained
from guardreasoner.train.rows import RowMaker
from guardreasoner.train.settings import RESUMABLE, DpoConfig, ModelConfig, rank, world_size


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
        stage: name of the folder to write.
        mined: name of the folder that holds `preferences.jsonl`.
    """
    need("trl", "train")
    from guardreasoner.train.trainer import settled

    config = settled(config)
    root = Path(out)
    preferences, start = root / mined / "preferences.jsonl", Path(config.start or root / "sft" / "checkpoint")
    if not preferences.exists():
        raise DataError("no preferences yet; run `guardreasoner mine` first", file=str(preferences))
    if not any((start / name).exists() for name in ("config.json", ADAPTER)):
        raise DataError("no checkpoint to start from; run `guardreasoner sft` first", file=str(start))
    if config.lora is not None and not config.lora.merge and (start / ADAPTER).exists():
        raise ConfigError(
            "dpo.lora.merge: false wants a start of whole weights (sft.lora.merge: true): its adapters name the base, "
            "and those of the start would be lost"
        )
    if rank():
        _train(config, model, root / stage, preferences, start, None)
        return None
    asked = {**asdict(config), "model": asdict(model)}
    inputs = [preferences, start]
    with RunFolder(
        out, stage, config=asked, inputs=inputs, fresh=fresh, resumable_keys=RESUMABLE, processes=world_size()
    ) as run:
        return run.manifest or _train(config, model, root / stage, preferences, start, run)


def _train(
    config: DpoConfig, model_config: ModelConfig, folder: Path, preferences: Path, start: Path, run: RunFolder | None
) -> dict[str, Any] | None:
    from guardreasoner.train import dpo_rows, dpo_trainer
    from guardreasoner.train import trainer as training
    from guardreasoner.train.attention import best_attention

    if run is not None:
        training.drop_torn(folder / "trainer", run)
    arguments = training.arguments(config, folder / "trainer")
    model, tokenizer = load_checkpoint(start, attention=model_config.attention or best_attention())
    training.check_disk(folder, model, config)
    maker = RowMaker(
        tokenizer, model_config.wire, config.max_tokens, judged_tokens=config.judged_tokens, seed=config.seed
    )
    rows, about = dpo_rows.prepare(config, maker, preferences, folder / "rows")
    trainer = dpo_trainer.build(model, tokenizer, arguments, config=config, rows=rows, run=run)
    training.train(trainer, folder / "trainer")
    meta = {**read_meta(start), "stage": "dpo"}
    save_trained(
        trainer, tokenizer, folder / "checkpoint", meta=meta, merge=config.lora is not None and config.lora.merge
    )
    if run is None:
        return None
    return training.finish(run, trainer, about["counts"], tokens=about["tokens"])
