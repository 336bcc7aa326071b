"""TRL's SFTTrainer with the loss of `losses`: answer tokens only, verdicts weighted, F1 of `instant` on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from guardreasoner.run_folder import RunFolder
from guardreasoner.train.losses import TokenCounts, answer_logits, count_tokens, head_of, sft_loss
from guardreasoner.train.rows import NO_LABEL, NUMBER, RowMaker
from guardreasoner.train.settings import SftConfig
from guardreasoner.train.sft_rows import COLUMNS
from guardreasoner.train.trainer import InRecipeOrder, LossCurve, lora_config


class RowCollator:
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


class RSftTrainer(InRecipeOrder, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer; rows come ready made."""

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, config: SftConfig, deciding: Mapping[int, tuple[int, int]], **more: Any) -> None:
        """Args:
        deciding: for each task number the deciding token of its positive and of its negative word.
        """
        self.recipe = config
        self.deciding = deciding
        self._confusion = torch.zeros(len(deciding), 3, dtype=torch.long)
        super().__init__(*args, **more)
        self.head = head_of(self.model)

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
        labels, verdict = (inputs.pop(name) for name in ("labels", "verdict"))
        logits, targets, keep = answer_logits(model, self.head, labels, share=self.recipe.share_prefix, **inputs)
        losses = functional.cross_entropy(logits, targets, reduction="none")
        kinds = functional.pad(verdict[:, 1:], (0, 1))[keep]
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
    config: SftConfig,
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
        data_collator=RowCollator(tokenizer.pad_token_id, packed="seq_lengths" in rows.column_names),
        train_dataset=rows,
        eval_dataset=validation if config.validate_every else None,
        processing_class=tokenizer,
        peft_config=lora_config(config.lora, config.freeze),
        callbacks=[LossCurve(run)],
        config=config,
        deciding=deciding,
    )
