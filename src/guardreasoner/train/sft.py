"""R-SFT: train a base model on reasoning traces, loss on the answer only (paper section 3.2).

Reads `synthesize/traces.jsonl` (and `synthesize/validation.jsonl` where it is there); writes `sft/checkpoint`, curves
and a manifest. Rows are made once and kept in `sft/rows`; a killed run continues from its last whole checkpoint.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from guardreasoner.errors import ConfigError, DataError, need
from guardreasoner.run_folder import RunFolder
from guardreasoner.train.models import load_base, save_trained
from guardreasoner.train.rows import RowMaker
from guardreasoner.train.settings import NAMED_BASES, RESUMABLE, ModelConfig, SftConfig, rank, world_size


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
        out: the run's folder, with `synthesize/traces.jsonl`.
        stage: name of the folder to write (`sft`, or `sft-NAME` for a variant).
    """
    need("trl", "train")
    from guardreasoner.train.trainer import settled

    config = settled(config)
    traces = Path(out) / "synthesize" / "traces.jsonl"
    if not traces.exists():
        raise DataError("no reasoning traces yet; run `guardreasoner synthesize` first", file=str(traces))
    if rank():
        _train(config, model, Path(out), stage, None)
        return None
    asked = {**asdict(config), "model": asdict(model)}
    pairs = [Path(config.difficulty)] if config.difficulty else []
    if pairs and not pairs[0].exists():
        raise DataError("there is no such file; see sft.difficulty", file=str(pairs[0]))
    held, base = Path(out) / "synthesize" / "validation.jsonl", Path(model.base)
    inputs = [traces, *pairs]
    inputs += [held] if (config.validate_every or config.first_look) and held.exists() else []
    inputs += [base] if base.is_dir() and model.base not in NAMED_BASES else []
    with RunFolder(
        out, stage, config=asked, inputs=inputs, fresh=fresh, resumable_keys=RESUMABLE, processes=world_size()
    ) as run:
        return run.manifest or _train(config, model, Path(out), stage, run)


def _train(
    config: SftConfig, model_config: ModelConfig, out: Path, stage: str, run: RunFolder | None
) -> dict[str, Any] | None:
    from guardreasoner.train import sft_rows, sft_trainer
    from guardreasoner.train import trainer as training

    folder = out / stage
    if run is not None:
        training.drop_torn(folder / "trainer", run)
    arguments = training.arguments(config, folder / "trainer")
    model, tokenizer = load_base(model_config)
    if config.lora is not None and not config.lora.merge and model_config.base in NAMED_BASES:
        raise ConfigError("sft.lora.merge: false wants a base that is a folder or a hub id: the adapters name it")
    training.freeze(model, config.freeze)
    training.check_disk(folder, model, config)
    maker = _row_maker(config, model_config, tokenizer)
    rows, validation, about = sft_rows.prepare(config, maker, out, folder)
    trainer = sft_trainer.build(
        model, tokenizer, arguments, config=config, rows=rows, validation=validation, maker=maker, run=run
    )
    training.train(trainer, folder / "trainer")
    meta = {"wire": model_config.wire, "base": model_config.base, "stage": stage, "licences": about["licences"]}
    save_trained(
        trainer, tokenizer, folder / "checkpoint", meta=meta, merge=config.lora is not None and config.lora.merge
    )
    if run is None:
        return None
    facts = {key: about[key] for key in ("rows", "tokens", "shortened")}
    return training.finish(run, trainer, about["counts"], **facts)


def _row_maker(config: SftConfig, model_config: ModelConfig, tokenizer: Any) -> RowMaker:
    return RowMaker(
        tokenizer,
        model_config.wire,
        config.max_tokens,
        judged_tokens=config.judged_tokens,
        mask_unannotated=config.mask_unannotated,
        seed=config.seed,
    )
