"""What a run would take, before any of it is spent: rows, tokens, steps, time, memory, disk; and whether it can begin.

Rows and their lengths come from traces that are there, or else from the data section. Time and memory here are measured
on one and two layers of the base (`measured_cost`); where that would itself take long they are arithmetic. Hours on an
H100 are a line through the paper's six costs (4 x H100: R-SFT and HS-DPO of 1B, 3B, 8B), which it meets within 30%.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner.engines.hardware import multiplies_bf16
from guardreasoner.engines.hf import not_loaded
from guardreasoner.errors import ConfigError, EngineError, GuardReasonerError, need
from guardreasoner.train.lengths import Lengths, lengths_of
from guardreasoner.train.models import load_base
from guardreasoner.train.recipe import Recipe, values
from guardreasoner.train.settings import NAMED_BASES, DpoConfig, ModelConfig, SftConfig, TrainingConfig, accumulation

H100_FLOPS, H100_EFFICIENCY, H100_PASS_S = 989e12, 0.237, 0.19
"""Dense bf16 operations per second by data sheet; the share of it, and the seconds per pass, that fit the paper's."""
H100_ANSWER_MS = (25.6, 1.31)
"""Milliseconds of a sampled answer on vLLM: 25.6, and 1.31 per billion parameters (paper: 26.55, 30.29, 35.77)."""
PARAMETERS = {
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
}
"""Of the paper's bases, for estimates where the hub cannot be asked."""
PAIR_SHARE = {"Llama-3.2-1B": 0.18, "Llama-3.2-3B": 0.11, "Llama-3.1-8B": 0.12}
"""Hard samples over examples after the ensemble: 23K, 14K, 15K of 127.5K (paper section 3.3)."""
BYTES_PER_ANSWER = 1100
"""Of a sampled answer on disk (the published ones have 255 tokens)."""
MEASURABLE = 4e8
"""Parameters of the largest base that is measured on a CPU."""


@dataclass(frozen=True)
class Outlook:
    """The estimate for one stage."""

    stage: str
    rows: int
    """Examples or pairs; of `sample`, answers."""
    tokens: int
    """Over all epochs, padding included."""
    steps: int
    seconds: float | None
    """Device-seconds on this machine; None = it cannot be said."""
    h100_seconds: float
    memory_bytes: float
    """The highest of each process: weights, gradients, optimizer states, activations, and what a process has anyway."""
    kept_bytes: float
    """On disk when the stage is done."""
    peak_bytes: float
    """On disk while it runs, in all."""


def parameters_of(config: Any) -> int:
    """Parameters of a model by its transformers configuration."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())


def config_of(model: ModelConfig) -> Any:
    """The transformers configuration of a base."""
    if model.base in NAMED_BASES:
        return load_base(model)[0].config
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model.base, revision=model.revision)
    except OSError as error:
        raise EngineError(not_loaded(model.base, error)) from None


def steps_of(config: TrainingConfig, rows: int) -> int:
    """Optimizer steps."""
    return config.max_steps or max(1, -(-int(rows * config.epochs) // config.batch))


def h100_seconds(
    config: TrainingConfig, *, steps: int, length: float, parameters: int, pairs: int = 0, reference: int = 1
) -> float:
    """Device-seconds of a training stage on an H100.

    Args:
        length: tokens of a row, of one side of a pair.
        pairs: of HS-DPO; 0 = R-SFT.
        reference: how often the reference sees each pair.
    """
    rows = steps * config.batch * (2 if pairs else 1)
    work = (8 if config.gradient_checkpointing else 6) * parameters * rows * length
    work += 2 * parameters * pairs * 2 * length * reference
    return steps * config.batch / config.micro_batch * H100_PASS_S + work / (H100_FLOPS * H100_EFFICIENCY)


def look(
    stage: str,
    config: TrainingConfig,
    *,
    rows: int,
    lengths: Lengths,
    model: Any,
    parameters: int,
    processes: int = 1,
) -> Outlook:
    """The outlook of one training stage.

    Args:
        model: the base's transformers configuration; None = nothing is measured.
    """
    accumulation(config, processes)
    dpo = isinstance(config, DpoConfig)
    steps = steps_of(config, rows)
    sides = 2 if dpo else 1
    length = lengths.padded(config.micro_batch, grouped=config.group_by_length)
    reference = (1.0 if config.reference == "precomputed" else config.epochs) if isinstance(config, DpoConfig) else 0.0
    passes = steps * config.batch / config.micro_batch
    seconds, activations = None, 0.0
    if model is not None:
        from guardreasoner.train.measured_cost import PassShape, measure

        usual = PassShape(config.micro_batch * sides, int(length), lengths.answer)
        cost = measure(model, config, usual)
        seconds = passes * cost.train_s + steps * processes * cost.step_s
        seconds += rows / config.micro_batch * cost.forward_s * reference
        highest = PassShape(config.micro_batch * sides, min(config.max_tokens, lengths.longest), lengths.answer)
        activations = cost.kept_bytes * highest.rows * highest.length / (usual.rows * usual.length)
    trained = parameters if config.lora is None else parameters // 100
    checkpoint = 4 * parameters + 8 * trained
    coexisting = min(3, -(-steps // config.save_every))
    return Outlook(
        stage=stage,
        rows=rows,
        tokens=int(steps * config.batch * sides * length),
        steps=steps,
        seconds=seconds,
        h100_seconds=h100_seconds(
            config,
            steps=steps,
            length=length,
            parameters=parameters,
            pairs=rows if dpo else 0,
            reference=int(reference),
        ),
        memory_bytes=_memory(config, parameters, trained, processes=processes) + activations,
        kept_bytes=4 * parameters,
        peak_bytes=4 * parameters + coexisting * checkpoint,
    )


def _memory(config: TrainingConfig, parameters: int, trained: int, *, processes: int) -> float:
    """Bytes that a process holds beside its activations."""
    import torch

    from guardreasoner.train.trainer import resident_bytes, settled

    states = 4 * parameters + 12 * trained
    if processes > 1 and config.distributed == "ddp":
        states += 4 * trained  # the buckets in which gradients are exchanged
    elif processes > 1:
        states //= processes
    copies = 2 * parameters if settled(config).precision == "bf16" else 0  # autocast keeps weights in bfloat16
    copies += 4 * parameters if isinstance(config, DpoConfig) and config.lora is None else 0  # the reference
    return states + copies + (0 if torch.cuda.is_available() else resident_bytes())


def outlooks(
    recipe: Recipe, out: Path, *, stages: Sequence[str], data_dir: Path | None = None, processes: int = 1
) -> tuple[list[Outlook], list[str]]:
    """What the stages of a recipe would take, and what prevents it."""
    for module in ("torch", "transformers", "trl"):
        need(module, "train")
    obstacles: list[str] = []
    lengths, known, model = Lengths(), False, None
    parameters = PARAMETERS.get(recipe.model.base, 0)
    try:
        model = config_of(recipe.model)
        parameters = parameters_of(model)
    except GuardReasonerError as error:
        obstacles.append(str(error))
    try:
        lengths, known = lengths_of(recipe, out, data_dir), True
    except GuardReasonerError as error:
        obstacles.append(str(error))
    import torch

    measured = model if known and (torch.cuda.is_available() or 0 < parameters <= MEASURABLE) else None
    found: list[Outlook] = []
    for name in stages:
        try:
            seen = _stage(recipe, name, lengths, out, model=measured, parameters=parameters, processes=processes)
            found += [seen] if seen and known else []
        except GuardReasonerError as error:
            obstacles.append(f"{name}: {error}")
    return found, [*dict.fromkeys(obstacles), *_disk(found, out), *_number_format(recipe)]


def _stage(
    recipe: Recipe, name: str, lengths: Lengths, out: Path, *, model: Any, parameters: int, processes: int
) -> Outlook | None:
    if name == "sample":
        return _sample(recipe, lengths, model=model, parameters=parameters)
    training = _training(recipe, name, lengths, out)
    if training is None:
        return None
    config, rows = training
    return look(name, config, rows=rows, lengths=lengths, model=model, parameters=parameters, processes=processes)


def _training(recipe: Recipe, name: str, lengths: Lengths, out: Path) -> tuple[TrainingConfig, int] | None:
    """Configuration and rows of a training stage; None = another kind of stage."""
    if name == "dpo" or name.startswith("dpo-"):  # an ablation has several
        mined = out / name.replace("dpo", "mine") / "preferences.jsonl"
        if mined.exists():
            return recipe.dpo, sum(1 for line in mined.open(encoding="utf-8") if line.strip())
        share = next((s for key, s in PAIR_SHARE.items() if key in recipe.model.base), 0.15)
        return recipe.dpo, int(lengths.rows * share)
    if name == "sft" or name.startswith("sft-"):
        config = recipe.variant(name.removeprefix("sft-") if name != "sft" else "sft")
        made = int(_examples(config, lengths) * (config.reasoning + config.labels_only))
        return config, min(made, config.subset or made)
    return None


def _examples(config: SftConfig, lengths: Lengths) -> int:
    """Examples that a model is trained on."""
    if not lengths.sources:
        return lengths.rows
    from guardreasoner.train.sft_rows import check_sources

    check_sources(config, lengths.sources)
    return sum(
        n
        for source, n in lengths.sources.items()
        if source not in config.leave_out and (not config.only or source in config.only)
    )


def _sample(recipe: Recipe, lengths: Lengths, *, model: Any, parameters: int) -> Outlook:
    config = recipe.sample
    answers = 0
    for name in config.models:
        own = recipe.variants.get(name) if config.only_trained_on else None
        rows = _examples(own, lengths) if own else lengths.rows
        answers += config.k * min(rows, config.limit or rows)
    tokens = min(config.max_tokens, lengths.answer)
    seconds = None
    if model is not None and config.engine != "vllm":
        from guardreasoner.train.measured_cost import seconds_per_answer

        prompt = max(1, int(lengths.mean - lengths.answer))
        seconds = answers * seconds_per_answer(model, tokens=tokens, prompt=prompt)
    base, more = H100_ANSWER_MS
    size = answers * BYTES_PER_ANSWER * tokens / 255
    return Outlook(
        stage="sample",
        rows=answers,
        tokens=answers * tokens,
        steps=0,
        seconds=seconds,
        h100_seconds=answers * (base + more * parameters / 1e9) / 1000,
        memory_bytes=4 * parameters,
        kept_bytes=size,
        peak_bytes=size,
    )


def most_on_disk(found: Sequence[Outlook]) -> float:
    """The highest that a run takes on disk: what earlier stages keep, and what one needs while it runs."""
    kept = most = 0.0
    for one in found:
        most = max(most, kept + one.peak_bytes)
        kept += one.kept_bytes
    return most


def _disk(found: Sequence[Outlook], out: Path) -> list[str]:
    wanted = most_on_disk(found)
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if wanted > free:
        return [f"{place} has {free / 1e9:.1f} GB free, this run wants {wanted / 1e9:.1f} GB; give another --out"]
    return []


def _number_format(recipe: Recipe) -> list[str]:
    import torch

    wants = "bf16" in (recipe.sft.precision, recipe.dpo.precision)
    if wants and torch.cuda.is_available() and not multiplies_bf16(torch, "cuda"):
        return ["this GPU cannot compute in bf16; set precision: fp32, or auto"]
    return []


def print_outlook(
    recipe: Recipe, out: Path, *, stages: Sequence[str], data_dir: Path | None = None, processes: int = 1
) -> None:
    """Print the outlook of a recipe."""
    asked = [name for name in stages if name in ("sft", "sample", "dpo") or name.startswith(("sft-", "dpo-"))]
    found, obstacles = outlooks(recipe, out, stages=asked, data_dir=data_dir, processes=processes)
    print(f"recipe {recipe.name}: base {recipe.model.base}, wire {recipe.model.wire}, stages {', '.join(stages)}")
    for line in values(recipe):
        print(f"  {line}")
    for one in found:
        print(_line(one, processes))
    if found:
        print(
            f"  in all: H100 {sum(o.h100_seconds for o in found) / 3600:.2f} device-hours, "
            f"{sum(o.kept_bytes for o in found) / 1e9:.1f} GB kept on disk, {most_on_disk(found) / 1e9:.1f} GB at most"
        )
    if obstacles:
        raise ConfigError("the run cannot start: " + "; ".join(obstacles))


def _line(one: Outlook, processes: int) -> str:
    what = "answers" if one.stage == "sample" else "rows"
    steps = f"{one.steps:,} steps, " if one.steps else ""
    here = "no estimate here" if one.seconds is None else f"about {one.seconds / 3600:.2f} device-hours here"
    each = f"{one.memory_bytes / 1e9:.1f} GB per device" + (f" x {processes}" if processes > 1 else "")
    return (
        f"  {one.stage}: {one.rows:,} {what}, {one.tokens:,} tokens, {steps}{here} (H100: "
        f"{one.h100_seconds / 3600:.2f}), {each}, {one.kept_bytes / 1e9:.1f} GB of disk kept "
        f"({one.peak_bytes / 1e9:.1f} GB while it runs)"
    )
