"""The training of networks that score text: nano (`train/minilm.py`), and micro's second one (`train/decoder.py`).

Both learn from the labels of the same rows. A run saves its state every few minutes and continues where it stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from guardreasoner.data.harm_kinds import kinds
from guardreasoner.engines.hardware import multiplies_bf16
from guardreasoner.records import sha256, write_jsonl
from guardreasoner.run_folder import RunFolder
from guardreasoner.train.decoder import DecoderModel, one_head_each, whole_exchanges
from guardreasoner.train.encoder_mix import counted, load_rows, validation_rows
from guardreasoner.train.encoder_rows import EncoderRow
from guardreasoner.train.encoder_settings import EncoderConfig
from guardreasoner.train.minilm import OUTPUTS, EncoderModel
from guardreasoner.types import TASKS, Task

Model = EncoderModel | DecoderModel
_KINDS = len(TASKS) + 1
JOINED = ("joined", "steered")
"""Sources of rows that are made of several."""


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


def targets(rows: Sequence[EncoderRow]) -> tuple[torch.Tensor, torch.Tensor]:
    """Gold of tasks and attack (rows, 4) with NaN where unknown, and the index of the kind (rows,), -100 = none."""
    names = list(kinds())
    nan = float("nan")
    gold = [[nan if v is None else v for v in (*row.labels, row.attack)] for row in rows]
    kind = [names.index(row.kind) if row.kind and row.harmful else -100 for row in rows]
    return torch.tensor(gold), torch.tensor(kind)


def source_odds(rows: Sequence[EncoderRow]) -> torch.Tensor:
    """Log-odds of each label of the tasks (rows, tasks) among the rows of the same source that have it, one of either
    side added, so that a source of one label has odds too."""
    counts: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        for task, label in enumerate(row.labels):
            if label is not None:
                sides = counts.setdefault((row.source, task), [1.0, 1.0])
                sides[0] += float(label)
                sides[1] += 1 - float(label)
    odds = {key: math.log(yes / no) for key, (yes, no) in counts.items()}
    return torch.tensor([[odds.get((row.source, task), 0.0) for task in range(len(TASKS))] for row in rows])


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


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate: up over the warm-up, then down to nothing in a straight line."""
    rise = max(1, round(warmup * steps))
    return min(1.0, (step + 1) / rise) * max(0.0, 1 - max(0, step - rise) / max(1, steps - rise))


def run(
    stage: Literal["encoder", "decoder"],
    out: str | Path,
    data: str | Path,
    config: EncoderConfig,
    *,
    fresh: bool = False,
) -> dict[str, Any]:
    """Train one network as a stage: writes `STAGE/model.safetensors`; a killed run continues at its last saved step.

    Args:
        stage: `encoder` = nano, which also writes `validation.jsonl`; `decoder` = micro's second network.
        out: the folder of the run.
        data: the data folder.
        config: of the stage.
        fresh: throw away what the stage holds.
    """
    read = [path for path in (Path(data) / name for name in ("train", "traces", "everyday")) if path.is_dir()]
    with RunFolder(out, stage, config=asdict(config), inputs=read, fresh=fresh) as folder:
        if folder.manifest is not None:
            return folder.manifest
        rows, about = load_rows(data, config.data)
        torch.manual_seed(config.seed)  # of fresh weights
        if stage == "encoder":
            about["validation"] = write_jsonl(folder.path / "validation.jsonl", validation_rows(data, config.data))
            model: Model = EncoderModel()
        else:
            rows = whole_exchanges(rows)
            about, model = counted(rows), DecoderModel(config)
        odds = config.source_odds * source_odds(rows)
        return _trained(folder, model, model.encode(rows, _limits(rows, config)), *targets(rows), odds, config, about)


def _trained(
    folder: RunFolder,
    model: Model,
    encoded: Sequence[Any],
    gold: torch.Tensor,
    kind: torch.Tensor,
    odds: torch.Tensor,
    config: EncoderConfig,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Train, write the checkpoint, end the stage."""
    lengths = [len(ids) for ids, _ in encoded]
    plan = [batch for epoch in range(config.epochs) for batch in batches(lengths, config, epoch)]
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
            logits = model(*model.padded([encoded[i] for i in chosen])).float()
        logits[:, : len(TASKS)] += odds[chosen]
        loss = loss_of(logits, gold[chosen], kind[chosen], config)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        kept.append(loss.item())
        done += sum(lengths[i] for i in chosen)
        now = time.monotonic()
        if (step + 1) % 25 == 0:
            left = (now - started) / (step + 1 - begin) * (len(plan) - step - 1) / 60
            folder.tick()
            folder.log(step=step + 1, steps=len(plan), loss=float(np.mean(kept[-100:])), tokens=done, minutes_left=left)
        if now - last > config.save_minutes * 60:
            _save(state, model, optimizer, step=step + 1, seconds=spent + now - started)
            last = now
    tensors = model.trained() if isinstance(model, EncoderModel) else one_head_each(model.trained())
    lend_to_reply(tensors, config)
    path = folder.path / "model.safetensors"
    save_file(tensors, path)
    seconds = spent + time.monotonic() - started
    counts = {"in": len(encoded), "out": len(encoded), "dropped": {}}
    return folder.finish(counts, about=about, steps=len(plan), tokens=done, train_seconds=seconds, sha256=sha256(path))


def lend_to_reply(tensors: Mapping[str, torch.Tensor], config: EncoderConfig) -> None:
    """Change the reply's head of a checkpoint by shares of two others (`EncoderConfig`): heads are linear, so a
    network that runs pays nothing for it."""
    request, refusal, reply = (OUTPUTS.index(t.value) for t in (Task.prompt_harm, Task.refusal, Task.response_harm))
    for part in (tensors["heads.weight"], tensors["heads.bias"]):
        part[reply] += config.reply_from_request * part[request] - config.reply_from_refusal * part[refusal]


def _limits(rows: Sequence[EncoderRow], config: EncoderConfig) -> list[int]:
    """Most tokens of each row: of some at random, and of those that a cut could spoil, more (`long_tokens`)."""
    long = np.random.default_rng(config.seed).random(len(rows)) < config.long
    whole = np.array([row.source in JOINED for row in rows])  # a cut could take what is harmful
    limits: list[int] = np.where(long | whole, config.long_tokens, config.tokens).tolist()
    return limits


def _optimizer(model: Model, config: EncoderConfig) -> torch.optim.Optimizer:
    heads = list(model.heads.parameters())
    own = {id(p) for p in heads}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    groups = [{"params": rest, "peak": config.learning_rate}, {"params": heads, "peak": config.head_rate}]
    return torch.optim.AdamW(groups, config.learning_rate, (0.9, 0.98), weight_decay=config.weight_decay, fused=True)


def _restore(path: Path, model: Model, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Steps and seconds that a killed run has behind it; its state is put in place."""
    if not path.exists():
        return 0, 0.0
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"], strict=isinstance(model, EncoderModel))
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"], saved["seconds"]


def _save(path: Path, model: Model, optimizer: torch.optim.Optimizer, *, step: int, seconds: float) -> None:
    state = {"model": model.trained(), "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}
    half = path.with_suffix(".half")
    torch.save(state, half)
    half.replace(path)
