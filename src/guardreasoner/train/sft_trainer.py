"""TRL's SFTTrainer with the loss of `losses`: answer tokens only, verdicts weighted, F1 of `instant` on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from guardreasoner.data.mix import draw
from guardreasoner.errors import ConfigError, DataError
from guardreasoner.records import Counts, RunFolder, read_nouns, write_atomic
from guardreasoner.train import sft
from guardreasoner.train.losses import TokenCounts, answer_logits, count_tokens, head_of, sft_loss, soft_losses
from guardreasoner.train.models import save_checkpoint
from guardreasoner.train.rows import NO_LABEL, NUMBER, Row, RowMaker
from guardreasoner.train.trainer import Curve, RowOrder, first_process_first, lora_config
from guardreasoner.types import Example, Trace

COLUMNS: Mapping[str, tuple[str, float]] = {
    "input_ids": ("int32", 0),
    "labels": ("int32", NO_LABEL),
    "verdict": ("int32", 0),
    "soft": ("float32", 0.0),
}
"""Type and filling of each column; `input_ids` are filled with the tokenizer's padding."""


class Collator:
    """Rows to right-padded tensors; or, packed, to one long row in which positions start anew for every example."""

    def __init__(self, pad: int, *, packed: bool) -> None:
        self.pad, self.packed = pad, packed

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        if self.packed:
            return self._flat(rows)
        longest = max(len(row["input_ids"]) for row in rows)
        fill = {name: filling for name, (_, filling) in COLUMNS.items()} | {"input_ids": self.pad}
        batch = {
            name: torch.tensor([[*row[name], *[fill[name]] * (longest - len(row[name]))] for row in rows])
            for name in COLUMNS
        }
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        batch["attention_mask"] = (torch.arange(longest)[None] < lengths[:, None]).long()
        return batch

    def _flat(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch = {name: torch.tensor([[x for row in rows for x in row[name]]]) for name in COLUMNS}
        lengths = [n for row in rows for n in row["seq_lengths"]]
        batch["position_ids"] = torch.cat([torch.arange(n) for n in lengths])[None]
        starts = np.cumsum([0, *lengths[:-1]])
        batch["labels"][0, starts] = NO_LABEL  # nothing is predicted across the border of two examples
        return batch


class RSftTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer; rows come ready made."""

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, config: sft.SftConfig, deciding: Mapping[int, tuple[int, int]], **more: Any) -> None:
        """Args:
        config: the recipe's.
        deciding: for each task number the deciding token of its positive and of its negative word.
        """
        self.recipe = config
        self.deciding = deciding
        self._confusion = torch.zeros(len(deciding), 3, dtype=torch.long)
        super().__init__(*args, **more)
        self.head = head_of(self.model)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None here: the card is written when a guard is exported."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        config = self.recipe
        return RowOrder(rows["length"], size=config.micro_batch, seed=config.seed, grouped=config.group_by_length)

    def _get_num_items_in_batch(self, batch_samples: Sequence[Mapping[str, Tensor]], device: Any) -> Tensor | None:
        """Text and verdict tokens of the whole step, over all processes: how it is split does not matter."""
        if not batch_samples:
            return None
        local = torch.stack([count_tokens(b["labels"], b["verdict"]) for b in batch_samples]).sum(0).to(device)
        total: Tensor = self.accelerator.gather(local[None]).sum(0)
        return total

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Any:
        labels, verdict, soft = (inputs.pop(name) for name in ("labels", "verdict", "soft"))
        logits, targets, keep = answer_logits(model, self.head, labels, **inputs)
        losses = functional.cross_entropy(logits, targets, reduction="none")
        kinds = functional.pad(verdict[:, 1:], (0, 1))[keep]
        if self.recipe.soft_labels:
            soft = functional.pad(soft[:, 1:], (0, 1))[keep]
            for number, words in self.deciding.items():
                here = kinds == number
                losses = losses.masked_scatter(here, soft_losses(logits[here], soft[here], *words))
        counts = count_tokens(labels, verdict) if num_items_in_batch is None else num_items_in_batch
        loss = sft_loss(losses, kinds > 0, TokenCounts(counts[0], counts[1]), self.recipe.verdict_weight)
        self._note(losses.detach(), kinds, inputs)
        if not self.model.training:
            self._judge(logits.detach(), targets, kinds)
        elif num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes
        return (loss, {"logits": logits}) if return_outputs else loss

    def _note(self, losses: Tensor, kinds: Tensor, inputs: Mapping[str, Tensor]) -> None:
        mode = "train" if self.model.training else "eval"
        for name, chosen in (("verdict_loss", losses[kinds > 0]), ("text_loss", losses[kinds == 0])):
            if len(chosen):
                self._metrics[mode][name].append(float(chosen.mean()))
        if mode == "train":
            self._total_train_tokens += int(inputs.get("attention_mask", inputs["input_ids"] >= 0).sum())
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    def _judge(self, logits: Tensor, targets: Tensor, kinds: Tensor) -> None:
        for number, (positive, negative) in self.deciding.items():
            here = kinds == number
            said = logits[here, positive] >= logits[here, negative]
            true = targets[here] == positive
            hits = torch.stack([(said & true).sum(), (said & ~true).sum(), (~said & true).sum()])
            self._confusion[number - 1] += hits.cpu()

    def evaluate(self, *args: Any, **more: Any) -> dict[str, float]:
        """Validation loss, and per task the strict F1 that `instant` would have at threshold 0."""
        self._confusion.zero_()
        return super().evaluate(*args, **more)  # type: ignore[no-any-return]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "eval_loss" in logs:
            table = self.accelerator.gather(self._confusion[None].to(self.args.device)).sum(0).tolist()
            for task, (hit, false, missed) in zip(NUMBER, table, strict=True):
                logs[f"eval_f1_{task.value}"] = 200 * hit / max(1, 2 * hit + false + missed)
        super().log(logs, start_time)


def build(
    model: Any,
    tokenizer: Any,
    arguments: Mapping[str, Any],
    *,
    config: sft.SftConfig,
    rows: Any,
    validation: Any,
    maker: RowMaker,
    run: RunFolder | None,
) -> RSftTrainer:
    """The trainer of one run."""
    deciding = {
        number: (maker.verdict_ids(task)[0][maker.deciding(task)], maker.verdict_ids(task)[1][maker.deciding(task)])
        for task, number in NUMBER.items()
    }
    return RSftTrainer(
        model=model,
        args=TrlConfig(
            **arguments, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, prediction_loss_only=True
        ),
        data_collator=Collator(tokenizer.pad_token_id, packed="seq_lengths" in rows.column_names),
        train_dataset=rows,
        eval_dataset=validation if config.validate_every else None,
        processing_class=tokenizer,
        peft_config=lora_config(config.lora),
        callbacks=[Curve(run)],
        config=config,
        deciding=deciding,
    )


def prepare(config: sft.SftConfig, maker: RowMaker, out: Path, folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Training rows, validation rows (or None), and what the manifest says of them; made once, by the first process."""
    from datasets import load_from_disk

    with first_process_first():
        if not (folder / "rows" / "about.json").exists():
            _write_rows(config, maker, out, folder / "rows")
    about = json.loads((folder / "rows" / "about.json").read_text())
    validation = load_from_disk(str(folder / "rows" / "validation")) if about["validation_rows"] else None
    return load_from_disk(str(folder / "rows" / "train")), validation, about


def _write_rows(config: sft.SftConfig, maker: RowMaker, out: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    counts = Counts()
    traces = sft.select(read_nouns(Trace, out / "synthesize" / "traces.jsonl"), config, counts)
    scored = sum(trace.example.exchange.id in maker.scores for trace in traces)
    if maker.scores and not scored:
        raise DataError("none of its verdicts is on a training row", file=str(config.soft_labels))
    tally = {"rows": 0, "tokens": 0, "shortened": 0, "scored": scored}

    def counted() -> Iterable[Row]:
        for row in sft.rows_of(traces, maker, config, counts):
            tally["rows"] += 1
            tally["tokens"] += len(row.input_ids)
            tally["shortened"] += row.shortened
            yield row

    table = _dataset(counted(), config, maker)
    table.save_to_disk(str(folder / "train"))
    held = _validation(config, maker, out / "synthesize" / "validation.jsonl")
    if held:
        _dataset(held, config, maker, packed=False).save_to_disk(str(folder / "validation"))
    about = {"counts": counts.as_dict(), "licences": _licences(out), "validation_rows": len(held), **tally}
    write_atomic(folder / "about.json", json.dumps(about))


def _dataset(rows: Iterable[Row], config: sft.SftConfig, maker: RowMaker, *, packed: bool | None = None) -> Any:
    """Rows as an Arrow table, packed where the recipe and the machine say so."""
    import pyarrow as pa
    from datasets import Dataset
    from trl import pack_dataset

    chunks: list[Any] = []
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    schema = pa.schema([(name, pa.list_(pa.type_for_alias(kind))) for name, (kind, _) in COLUMNS.items()])

    def flush() -> None:
        chunks.append(pa.table({f.name: pa.array(columns[f.name], f.type) for f in schema}, schema))
        for column in columns.values():
            column.clear()

    for row in rows:
        for name in COLUMNS:
            columns[name].append(np.asarray(getattr(row, name), dtype=COLUMNS[name][0]))
        if len(columns["labels"]) == 4096:
            flush()
    flush()
    dataset = Dataset(pa.concat_tables(chunks))
    if not len(dataset):
        raise ConfigError("no row is left to train on; see sft.only, sft.leave_out, sft.reasoning, sft.labels_only")
    if sft_packs(config) if packed is None else packed:
        dataset = pack_dataset(dataset, config.max_tokens, "bfd")
    return dataset.add_column("length", [len(ids) for ids in dataset["input_ids"]])


def sft_packs(config: sft.SftConfig) -> bool:
    """Whether rows are packed here."""
    from guardreasoner.train.models import best_attention

    return config.packing == "on" or (config.packing == "auto" and best_attention() == "flash_attention_2")


def _validation(config: sft.SftConfig, maker: RowMaker, path: Path) -> list[Row]:
    """Validation rows ask for labels at once: with the reasoning in sight, a verdict would be no measure."""
    if not config.validate_every or not path.exists():
        return []
    examples = sorted(read_nouns(Example, path), key=lambda e: draw(config.seed, "validation", e.exchange.id))
    rows = [maker.row(example) for example in examples[: config.validation_rows]]
    return [row for row in rows if row is not None]


def _licences(out: Path) -> dict[str, Any]:
    """Licence classes and counts of the rows behind the traces, as the synthesis manifest states them."""
    path = out / "synthesize" / "manifest.json"
    if not path.exists():
        return {}
    manifest = json.loads(path.read_text())
    data = manifest.get("config", {}).get("data", {})
    return {"use": data.get("use"), "licences": manifest.get("counts", {}).get("licences")}


def save(trainer: Any, tokenizer: Any, target: Path, *, meta: Mapping[str, Any], merge: bool = False) -> None:
    """Write the trained weights as a checkpoint: adapters merged in, sharded ones gathered from all processes."""
    accelerator = trainer.accelerator
    bare = accelerator.unwrap_model(trainer.model)
    state = accelerator.get_state_dict(trainer.model_wrapped) if _is_sharded(trainer) else None
    if merge:
        if state is not None:
            raise ConfigError("lora with fsdp or zero3 cannot be merged here; train adapters with distributed: ddp")
        bare = bare.merge_and_unload()
    bare.__dict__.pop("forward", None)  # TRL's patched forward
    if trainer.is_world_process_zero():
        save_checkpoint(bare, tokenizer, target, meta=meta, state=state)
    accelerator.wait_for_everyone()


def _is_sharded(trainer: Any) -> bool:
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
