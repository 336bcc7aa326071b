"""What a run would take, before any of it is spent: rows, tokens, steps, time, memory, disk; and whether it can begin.

Sizes come from the base model's configuration, rows from the data section or from traces that are there. Times are
estimates: tokens x 6 x parameters over the speed that this machine reaches on a matrix product, times an efficiency.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guardreasoner.data.mix import load_mix
from guardreasoner.errors import ConfigError, DataError, EngineError, GuardReasonerError, need
from guardreasoner.records import read_jsonl
from guardreasoner.teach.imported import HUB_ID, PUBLISHED
from guardreasoner.train.recipe import Recipe
from guardreasoner.train.settings import DpoConfig, ModelConfig, TrainingConfig, accumulation

EFFICIENCY = 0.35
"""Share of the speed of a bare matrix product that training is taken to reach."""
CHARACTERS_PER_TOKEN = 4.0
"""Used without a tokenizer: English text in a Llama-3 vocabulary."""
TRACE_TOKENS = 255
"""Tokens of an answer with reasoning (paper Table 5: 254-260)."""
H100_FLOPS = 989e12
"""Dense bf16 operations per second of an H100 SXM, by its data sheet: for runs that are planned on another machine."""
PARAMETERS = {
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
}
"""Of the paper's bases, for estimates where the hub cannot be asked."""
PROMPT_TOKENS = 500
"""Tokens of an official prompt with its instruction; a guess, for published traces that are not here yet."""
PAIR_SHARE = {"Llama-3.2-1B": 0.18, "Llama-3.2-3B": 0.11, "Llama-3.1-8B": 0.12}
"""Hard samples over examples after the ensemble: 23K, 14K, 15K of 127.5K (paper section 3.3)."""


@dataclass(frozen=True)
class Outlook:
    """The estimate for one training stage."""

    stage: str
    rows: int
    tokens: int
    """Over all epochs."""
    steps: int
    seconds: float
    h100_seconds: float
    """The same on an H100, by arithmetic."""
    memory_bytes: float
    """Per device: weights, gradients, optimizer states; activations come on top."""
    disk_bytes: float
    """Two checkpoints with optimizer states, and the final weights."""


def parameters_of(model: ModelConfig) -> int:
    """Parameters of the base model, from its configuration alone.

    Raises:
        EngineError: the configuration cannot be loaded.
    """
    if model.base in ("minilm", "tiny"):
        from guardreasoner.train.models import load_base

        return sum(p.numel() for p in load_base(model)[0].parameters())
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from guardreasoner.train.models import explain

    try:
        config = AutoConfig.from_pretrained(model.base, revision=model.revision)
    except OSError as error:
        raise EngineError(explain(model.base, error)) from None
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config)
    return sum(p.numel() for p in built.parameters())


def speed(precision: str) -> float:
    """Floating-point operations per second of a matrix product here, measured for a third of a second."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 768
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(size, size, device=device, dtype=dtype)
    settle = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    a @ a
    settle()
    began, rounds = time.monotonic(), 0
    while time.monotonic() - began < 0.3:
        for _ in range(4):
            a @ a
        settle()
        rounds += 4
    return rounds * 2 * size**3 / (time.monotonic() - began)


def look(
    stage: str, config: TrainingConfig, *, rows: int, tokens_per_row: float, parameters: int, flops: float
) -> Outlook:
    """The outlook of one training stage.

    Raises:
        ConfigError: the batch cannot be shared out evenly.
    """
    accumulation(config, int(os.environ.get("WORLD_SIZE", "1")))
    steps = config.max_steps or max(1, -(-int(rows * config.epochs) // config.batch))
    tokens = int(steps * config.batch * min(tokens_per_row, config.max_tokens))
    trained = parameters if config.lora is None else parameters // 100
    return Outlook(
        stage=stage,
        rows=rows,
        tokens=tokens,
        steps=steps,
        seconds=6 * parameters * tokens / (flops * EFFICIENCY),
        h100_seconds=6 * parameters * tokens / (H100_FLOPS * EFFICIENCY),
        memory_bytes=4 * parameters + 12 * trained,
        disk_bytes=2 * (4 * parameters + 8 * trained) + 4 * parameters,
    )


def outlooks(
    recipe: Recipe, out: Path, *, stages: Sequence[str], data_dir: Path | None = None
) -> tuple[list[Outlook], list[str]]:
    """What the training stages of a recipe would take, and what prevents them.

    Raises:
        MissingDependency: torch, transformers or TRL is not installed.
    """
    for module in ("torch", "transformers", "trl"):
        need(module, "train")
    from guardreasoner.train.trainer import settled

    obstacles: list[str] = []
    parameters, rows, per_row = 0, 0, 0.0
    try:
        parameters = parameters_of(recipe.model)
    except GuardReasonerError as error:
        obstacles.append(str(error))
        parameters = PARAMETERS.get(recipe.model.base, 0)
    try:
        rows, per_row = count_rows(recipe, out, data_dir)
    except (ConfigError, DataError) as error:
        obstacles.append(str(error))
    found: list[Outlook] = []
    flops = 0.0
    for name in stages:
        config, count = _stage(recipe, name, rows, out)
        if config is None:
            continue
        each = per_row * (2 if isinstance(config, DpoConfig) else 1)
        try:
            flops = flops or speed(settled(config).precision)
            found.append(look(name, config, rows=count, tokens_per_row=each, parameters=parameters, flops=flops))
        except ConfigError as error:
            obstacles.append(f"{name}: {error}")
    return found, [*obstacles, *_disk(found, out), *_dtype(recipe)]


def _stage(recipe: Recipe, name: str, rows: int, out: Path) -> tuple[TrainingConfig | None, int]:
    if name == "dpo" or name.startswith("dpo-"):  # an ablation has several
        mined = out / name.replace("dpo", "mine") / "preferences.jsonl"
        share = next((s for key, s in PAIR_SHARE.items() if key in recipe.model.base), 0.15)
        return recipe.dpo, sum(1 for _ in read_jsonl(mined)) if mined.exists() else int(rows * share)
    if name == "sft" or name.startswith("sft-"):
        config = recipe.variant(name.removeprefix("sft-") if name != "sft" else "sft")
        if recipe.traces == HUB_ID and (config.leave_out or config.only):
            rows = sum(
                row.samples
                for source, row in PUBLISHED.items()
                if source != "all" and source not in config.leave_out and source in (config.only or PUBLISHED)
            )
        made = int(rows * (config.reasoning + config.labels_only))
        return config, min(made, config.subset or made)
    return None, 0


def count_rows(recipe: Recipe, out: Path, data_dir: Path | None) -> tuple[int, float]:
    """Examples, and tokens of a row with reasoning, from the traces that are there or else from the data section.

    Raises:
        ConfigError, DataError: neither can be read.
    """
    traces = out / "synthesize" / "traces.jsonl"
    if traces.exists():
        lengths = [
            len(row["example"]["exchange"]["prompt"])
            + len(row["example"]["exchange"].get("response") or "")
            + len(row["reasoning"])
            for _, row in read_jsonl(traces)
        ]
        return len(lengths), sum(lengths) / max(1, len(lengths)) / CHARACTERS_PER_TOKEN + 30
    if recipe.traces == HUB_ID:
        return PUBLISHED["all"].samples, PROMPT_TOKENS + TRACE_TOKENS
    if recipe.traces or recipe.seeds:
        raise ConfigError("rows are known when traces are there; run `guardreasoner synthesize` first")
    train, _, _ = load_mix(recipe.data, data_dir)
    texts = sum(len(e.exchange.prompt) + len(e.exchange.response or "") for e in train)
    answer = 60 if recipe.synthesize.teacher == "template" else TRACE_TOKENS
    return len(train), texts / len(train) / CHARACTERS_PER_TOKEN + answer


def _disk(found: Sequence[Outlook], out: Path) -> list[str]:
    wanted = sum(o.disk_bytes for o in found)
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if wanted > free:
        return [f"{place} has {free / 1e9:.1f} GB free, this run wants {wanted / 1e9:.1f} GB; give another --out"]
    return []


def _dtype(recipe: Recipe) -> list[str]:
    import torch

    from guardreasoner.engines.hardware import multiplies_bf16

    wants = "bf16" in (recipe.sft.precision, recipe.dpo.precision)
    if wants and torch.cuda.is_available() and not multiplies_bf16(torch, "cuda"):
        return ["this GPU cannot compute in bf16; set precision: fp32, or auto"]
    return []


def print_outlook(recipe: Recipe, out: Path, *, stages: Sequence[str], data_dir: Path | None = None) -> None:
    """Print the outlook of a recipe.

    Raises:
        ConfigError: something prevents the training; everything that does is named.
    """
    trained = [name for name in stages if name in ("sft", "dpo") or name.startswith(("sft-", "dpo-"))]
    if "sft" in trained and "sample" in stages:
        extra = [recipe.folder(name) for name in recipe.variants if name in recipe.sample.models]
        trained[trained.index("sft") + 1 : trained.index("sft") + 1] = extra
    found, obstacles = outlooks(recipe, out, stages=trained, data_dir=data_dir)
    print(f"recipe {recipe.name}: base {recipe.model.base}, wire {recipe.model.wire}, stages {', '.join(stages)}")
    for one in found:
        print(_line(one))
    if found:
        print(
            f"estimates at {EFFICIENCY:.0%} of the matrix speed; the memory figure is unsharded and without activations"
        )
    if obstacles:
        raise ConfigError("the run cannot start: " + "; ".join(obstacles))


def _line(one: Outlook) -> str:
    return (
        f"  {one.stage}: {one.rows:,} rows, {one.tokens:,} tokens, {one.steps:,} steps, about {one.seconds / 3600:.2f} "
        f"device-hours here (H100: {one.h100_seconds / 3600:.2f}), {one.memory_bytes / 1e9:.1f} GB per device, "
        f"{one.disk_bytes / 1e9:.1f} GB of disk"
    )
