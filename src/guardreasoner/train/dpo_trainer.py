"""TRL's DPOTrainer with a weight per pair and an SFT term per pair, neither of which it has a hook for.

Kept of TRL: reference handling and its cache, collation, metrics, checkpoints. Replaced: the loss, and the forward pass
under it, which projects answer tokens only, as R-SFT's does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from trl import DPOConfig as TrlConfig
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from guardreasoner.run_folder import RunFolder
from guardreasoner.train.losses import answer_logits, dpo_loss, head_of, sequence_logps, token_logps
from guardreasoner.train.rows import NO_LABEL
from guardreasoner.train.settings import DpoConfig
from guardreasoner.train.trainer import InRecipeOrder, LossCurve, lora_config

NOT_FOR_THE_MODEL = ("completion_mask", "ref_chosen_logps", "ref_rejected_logps", "weight", "use_cache")


class PairCollator:
    """TRL's collator, which drops every column it does not know, and the weights that it drops."""

    def __init__(self, pad: int) -> None:
        self.inner = DataCollatorForPreference(pad_token_id=pad, max_length=None)

    def __call__(self, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch: dict[str, Tensor] = self.inner(list(pairs))
        batch["weight"] = torch.tensor([float(pair["weight"]) for pair in pairs])
        return batch


class HsDpoTrainer(InRecipeOrder, DPOTrainer):  # type: ignore[misc]
    """Rows come ready made in tokens, with their weights."""

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, config: DpoConfig, **more: Any) -> None:
        self.recipe = config
        super().__init__(*args, **more)

    @cached_property
    def head(self) -> nn.Module:
        """The output head of the policy; used before `__init__` has ended."""
        return head_of(self.accelerator.unwrap_model(self.model))

    @cached_property
    def reference_head(self) -> nn.Module:
        """The output head of the reference, where it is a model of its own."""
        return head_of(self.accelerator.unwrap_model(self.ref_model)) if self.ref_model is not None else self.head

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "weight" not in self._signature_columns:
            self._signature_columns += ["weight"]

    def _get_num_items_in_batch(self, batch_samples: Sequence[Mapping[str, Tensor]], device: Any) -> Tensor | None:
        """Pairs of the whole step, over all processes."""
        if not batch_samples:
            return None
        local = torch.tensor([sum(len(b["weight"]) for b in batch_samples)], device=device)
        total: Tensor = self.accelerator.gather(local).sum()
        return total

    def _logps(self, model: Any, head: nn.Module, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Summed log-probability and tokens of every answer, chosen ones first."""
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, NO_LABEL)
        rest = {k: v for k, v in inputs.items() if k not in NOT_FOR_THE_MODEL}
        logits, targets, keep = answer_logits(model, head, labels, **rest)
        return sequence_logps(token_logps(logits, targets), keep)

    def compute_ref_log_probs(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """Reference log-probabilities of a batch; with LoRA the reference is the model without its adapters."""
        own = self.ref_model is None
        bare = self.accelerator.unwrap_model(self.model)
        context = bare.disable_adapter() if own and hasattr(bare, "disable_adapter") else nullcontext()
        with torch.no_grad(), context, self.accelerator.autocast():
            logps, _ = self._logps(model, self.head if own else self.reference_head, inputs)
        return logps.chunk(2)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Any:
        logps, tokens = self._logps(model, self.head, inputs)
        chosen, rejected = logps.chunk(2)
        if "ref_chosen_logps" in inputs:
            references = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        else:
            references = self.compute_ref_log_probs(self.ref_model or model, inputs)
        parts = dpo_loss(
            chosen,
            rejected,
            references[0],
            references[1],
            chosen_tokens=tokens.chunk(2)[0],
            weights=inputs["weight"],
            beta=self.recipe.beta,
            sft_weight=self.recipe.sft_weight,
            weight_sft=self.recipe.weight_sft,
        )
        self._note(parts.preference.detach(), parts.sft.detach(), parts.delta.detach(), inputs)
        loss = parts.loss
        if num_items_in_batch is not None:  # a mean over the pairs of the step, however they are split
            loss = loss * len(chosen) / num_items_in_batch * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss

    def _note(self, preference: Tensor, sft: Tensor, delta: Tensor, inputs: Mapping[str, Tensor]) -> None:
        notes = self._metrics["train" if self.model.training else "eval"]
        notes["preference_loss"].append(float(preference.mean()))
        notes["sft_loss"].append(float(sft.mean()))
        notes["rewards/margins"].append(float(self.recipe.beta * delta.mean()))
        notes["rewards/accuracies"].append(float((delta > 0).float().mean()))
        self._total_train_tokens += int(inputs["attention_mask"].sum())
        notes["num_tokens"] = [self._total_train_tokens]


def build(
    model: Any, tokenizer: Any, arguments: Mapping[str, Any], *, config: DpoConfig, rows: Any, run: RunFolder | None
) -> HsDpoTrainer:
    """The trainer of one run."""
    return HsDpoTrainer(
        model=model,
        args=TrlConfig(
            **arguments,
            beta=config.beta,
            max_length=None,
            precompute_ref_log_probs=config.reference == "precomputed",
        ),
        data_collator=PairCollator(tokenizer.pad_token_id),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora_config(config.lora),
        callbacks=[LossCurve(run)],
        config=config,
    )
