"""What R-SFT and HS-DPO have in common: Trainer arguments, row order, curves, checkpoints that resume."""

from __future__ import annotations

import ctypes
import math
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK

from guardreasoner.engines.hardware import limit_threads, multiplies_bf16
from guardreasoner.errors import ConfigError, UnknownName
from guardreasoner.records import Appender, read_jsonl, write_atomic, write_jsonl
from guardreasoner.run_folder import Counts, RunFolder
from guardreasoner.train.settings import LoraSettings, TrainingConfig, accumulation, world_size

Config = TypeVar("Config", bound=TrainingConfig)
COMPLETE = "complete"
"""A file in a trainer checkpoint that was written to its end; a kill in the middle leaves a folder without it."""
SHOWN = ("loss", "verdict_loss", "text_loss", "preference_loss", "sft_loss", "learning_rate", "eval_loss")
"""What a line on stderr shows of the curve; `log.jsonl` holds all of it."""


def first_process_first() -> AbstractContextManager[None]:
    """The first process runs the body while the others wait; then they run it.

    On a CPU accelerate counts one process, whatever torchrun started, unless it is told that it is a CPU.
    """
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return state.main_process_first()  # type: ignore[no-any-return]


def arguments(config: TrainingConfig, folder: Path) -> dict[str, Any]:
    """The part of a Trainer's arguments that both stages share."""
    check_hardware(config)
    quiet_libraries()
    saving = config.validate_every if config.keep == "best" else config.save_every
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": config.micro_batch,
        "per_device_eval_batch_size": config.micro_batch,
        "gradient_accumulation_steps": accumulation(config, world_size()),
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup,
        "weight_decay": config.weight_decay,
        "adam_beta2": config.adam_beta2,
        "max_grad_norm": config.max_grad_norm,
        "bf16": config.precision == "bf16",
        **_recompute(config.gradient_checkpointing),
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "steps",
        "save_steps": saving,
        "save_total_limit": 2,
        "eval_strategy": "steps" if config.validate_every else "no",
        "eval_steps": config.validate_every or None,
        "load_best_model_at_end": config.keep == "best",
        "logging_steps": config.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "report_to": list(config.report_to),
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "average_tokens_across_devices": True,
        "ddp_find_unused_parameters": False,
        "seed": config.seed,
        **_sharding(config),
    }


def settled(config: Config) -> Config:
    """The configuration with `precision: auto` replaced by its value on this machine."""
    if config.precision != "auto":
        return config
    fast = multiplies_bf16(torch, "cuda" if torch.cuda.is_available() else "cpu")
    return replace(config, precision="bf16" if fast else "fp32")


def check_hardware(config: TrainingConfig) -> None:
    """Refuse, before any time is spent, what this machine cannot do."""
    if config.precision == "bf16" and torch.cuda.is_available() and not multiplies_bf16(torch, "cuda"):
        raise ConfigError("this GPU cannot compute in bf16; set precision: fp32, or auto")
    if config.distributed != "ddp" and world_size() == 1:
        raise ConfigError(f"distributed: {config.distributed} needs several processes; add --processes N, or set ddp")
    for name in config.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UnknownName("place to report to (report_to)", name, INTEGRATION_TO_CALLBACK)
        if find_spec(name) is None:
            raise ConfigError(f"report_to: {name} is not installed; pip install {name}, or leave it out")
    limit_threads(torch, config.threads, processes=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def freeze(model: Any, layers: int) -> None:
    """Keep the first layers of a Llama-type model, and its embeddings, as they are."""
    if layers:
        model.get_input_embeddings().requires_grad_(False)
        for layer in model.base_model.layers[:layers]:
            layer.requires_grad_(False)


def check_disk(folder: Path, model: Any, config: TrainingConfig) -> None:
    """Refuse before training when the checkpoints of a run cannot fit."""
    weights = sum(p.numel() for p in model.parameters())
    trained = weights if config.lora is None else weights // 100
    wanted = 2 * (4 * weights + 8 * trained) + 4 * weights
    folder.mkdir(parents=True, exist_ok=True)
    own = sum(p.stat().st_size for p in (folder / "trainer").rglob("*") if p.is_file())  # are written over
    free = shutil.disk_usage(folder).free + own
    if free < wanted:
        raise ConfigError(
            f"{folder} has {free / 1e9:.1f} GB free and checkpoints want {wanted / 1e9:.1f} GB; give another --out"
        )


def _recompute(on: bool) -> dict[str, bool | None]:
    """transformers renamed the switch; TRL still sets the old one to True by itself."""
    renamed = "activation_checkpointing" in {f.name for f in fields(TrainingArguments)}
    if not renamed:
        return {"gradient_checkpointing": on}
    return {"gradient_checkpointing": None, "activation_checkpointing": on}


def recompute_layers(model: Any) -> None:
    """What the Trainer does where activations are recomputed."""
    model.gradient_checkpointing_enable({"use_reentrant": False})


def _sharding(config: TrainingConfig) -> dict[str, Any]:
    if config.distributed == "fsdp":
        return {"fsdp": True, "fsdp_config": {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}}
    if config.distributed == "zero3":
        auto = "auto"
        stage = {"stage": 3, "overlap_comm": True, "stage3_gather_16bit_weights_on_model_save": True}
        return {
            "deepspeed": {
                "zero_optimization": stage,
                "bf16": {"enabled": auto},
                "train_batch_size": auto,
                "train_micro_batch_size_per_gpu": auto,
                "gradient_accumulation_steps": auto,
                "gradient_clipping": auto,
            }
        }
    return {}


def lora_config(settings: LoraSettings | None, frozen: int = 0) -> Any:
    """The PEFT configuration of some adapters, or None; the first `frozen` layers get none."""
    if settings is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets) if settings.targets else "all-linear",
        exclude_modules=rf".*\.layers\.({'|'.join(map(str, range(frozen)))})\..*" if frozen else None,
        task_type="CAUSAL_LM",
    )


class RowOrder(Sampler[int]):  # type: ignore[misc, unused-ignore]
    """The order of rows in each epoch: from seed and epoch alone, so that a resumed run sees what it would have seen.

    With grouping, rows are sorted by length inside pools of 50 passes and the passes are shuffled.
    """

    def __init__(self, lengths: Sequence[int], *, size: int, seed: int, grouped: bool) -> None:
        self.lengths = list(lengths)  # a column of a dataset is slow to index
        self.size, self.seed, self.grouped, self.epoch = size, seed, grouped, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        lot = random.Random(self.seed * 1_000_003 + self.epoch)
        order = list(range(len(self.lengths)))
        lot.shuffle(order)
        if not self.grouped:
            return iter(order)
        passes: list[list[int]] = []
        for start in range(0, len(order), self.size * 50):
            pool = sorted(order[start : start + self.size * 50], key=self.lengths.__getitem__)
            passes += [pool[i : i + self.size] for i in range(0, len(pool), self.size)]
        ragged = [p for p in passes if len(p) < self.size]
        passes = [p for p in passes if len(p) == self.size]
        lot.shuffle(passes)
        return iter([row for one in passes + ragged for row in one])


class InRecipeOrder:
    """What our trainers share: rows in the order that the recipe's seed gives, and no model card.

    The card is written when a guard is exported.
    """

    recipe: Any
    train_dataset: Any

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Writes none."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        config = self.recipe
        return RowOrder(rows["length"], size=config.micro_batch, seed=config.seed, grouped=config.group_by_length)


class LossCurve(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Keeps the curves as data (`log.jsonl`), shows them on stderr, and marks checkpoints that are whole."""

    def __init__(self, run: RunFolder | None) -> None:
        self.run = run
        self._began: tuple[float, int] | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """One line per logged step."""
        if self.run is None or not logs:
            return
        numbers = {key: float(value) for key, value in logs.items() if isinstance(value, int | float)}
        if not all(math.isfinite(numbers.get(key, 0.0)) for key in SHOWN):
            raise ConfigError(f"the loss is not finite at step {state.global_step}; lower learning_rate")
        self.run.log(step=state.global_step, **numbers)
        self.run.tick(peak_memory_bytes=peak_memory_bytes())
        shown = "  ".join(f"{key} {numbers[key]:.4g}" for key in SHOWN if key in numbers)
        print(f"{self.run.stage} {state.global_step}/{state.max_steps}  {shown}{self._left(state)}", file=sys.stderr)

    def _left(self, state: Any) -> str:
        """Rate and time left, measured from the first line of this process."""
        now, step = time.monotonic(), int(state.global_step)
        began = self._began = self._began or (now, step)
        if step <= began[1]:
            return ""
        rate = (step - began[1]) / (now - began[0])
        return f"  {rate:.2f} steps/s, {(state.max_steps - step) / rate / 60:.1f} min left"

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """All files of the checkpoint are there."""
        if self.run is not None:
            write_atomic(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE, "")


def finish(run: RunFolder, trainer: Any, counts: Counts, **facts: Any) -> dict[str, Any]:
    """Write the manifest of a training stage, and remove what only a resumption needs."""
    run.tick(peak_memory_bytes=peak_memory_bytes())
    manifest = run.finish(
        counts,
        **facts,
        steps=trainer.state.global_step,
        processes=world_size(),
        device_hours=run.device_hours,
        peak_memory_bytes=run.most("peak_memory_bytes"),
        train_loss=mean_loss(run),
    )
    for name in ("trainer", "rows"):  # only now: a kill before the manifest continues from them
        shutil.rmtree(run.path / name, ignore_errors=True)
    return manifest


def be_quiet(trainer: Any) -> None:
    """Leave stdout to results and stderr to `LossCurve`: libraries print dicts and bars of their own."""
    trainer.remove_callback(PrinterCallback)


def quiet_libraries() -> None:
    """Switch off the progress bars of datasets, transformers and TRL; their warnings stay."""
    import datasets
    import transformers

    os.environ.setdefault("TQDM_DISABLE", "1")
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()


def last_checkpoint(folder: Path) -> Path | None:
    """The newest trainer checkpoint that was written to its end."""
    whole = [p.parent for p in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(whole, key=lambda p: int(p.name.rsplit("-", 1)[1]), default=None)


def drop_torn(folder: Path, run: RunFolder) -> None:
    """Remove checkpoints that a kill left unfinished, and curve lines of steps that will be done again."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).exists():
            shutil.rmtree(path)
    kept = last_checkpoint(folder)
    step = int(kept.name.rsplit("-", 1)[1]) if kept else 0
    log = run.path / "log.jsonl"
    if log.exists():
        with Appender(log) as lines:
            write_jsonl(log, [row for row in lines.existing if kept and row.get("step", 0) <= step])


def keep_memory() -> None:
    """Ask glibc not to give freed memory back after every step: getting it again costs a tenth of a step on a CPU."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and not torch.cuda.is_available():
        for parameter, value in ((trim_threshold, 2**31 - 1), (top_pad, 2**28), (mmap_threshold, 2**25)):
            mallopt(parameter, value)


def train(trainer: Any, folder: Path) -> None:
    """Train from the last whole checkpoint, or from the start."""
    be_quiet(trainer)
    keep_memory()
    checkpoint = last_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def mean_loss(run: RunFolder) -> float | None:
    """The mean loss of a training stage over all its sittings, each line of the log weighed by its steps.

    What the Trainer reports itself divides the losses since the last start by all steps.
    """
    total, last = 0.0, 0
    for _, line in read_jsonl(run.path / "log.jsonl"):
        if "loss" in line:
            total += line["loss"] * (line["step"] - last)
            last = line["step"]
    return total / last if last else None


def resident_bytes() -> int:
    """What this process holds now: with torch and TRL loaded, what every training process has anyway."""
    import trl.trainer.dpo_trainer  # noqa: F401

    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


def peak_memory_bytes() -> int:
    """Most memory this process has held: of the GPU if there is one, else of the machine."""
    import resource

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
