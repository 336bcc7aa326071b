"""The bundled model's base as a plain classifier: both directions of attention, three heads, no reasoning.

    guardreasoner synthesize nano-research --out RUN
    python examples/encoder_guard.py train RUN OUT
    guardreasoner evaluate --guard examples/encoder_guard.py:EncoderGuard --option folder=OUT --data DATA --out SCORES
    python examples/encoder_guard.py label RUN OUT    # P of every training row, as `sft.soft_labels` reads them

It says what reasoning and the causal mask cost or bring at this size: same weights to begin with, same rows and texts,
one epoch. Probabilities and thresholds are fitted on the run's left-out sources. `label` scores rows that the encoder
was trained on, once each: those P lean towards gold. Needs the extra `train`.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import BertConfig, BertModel

from guardreasoner.errors import ConfigError
from guardreasoner.evaluate.calibrate import Target, as_asked, fit
from guardreasoner.guards.base import Judging
from guardreasoner.guards.calibration import Curve
from guardreasoner.records import read_nouns
from guardreasoner.train import minilm
from guardreasoner.train.attention import best_attention
from guardreasoner.train.rows import middle_out
from guardreasoner.train.trainer import RowOrder
from guardreasoner.types import TASKS, Example, Labels, Task, Trace, Verdict

JUDGED_TOKENS = 224
"""Of the request, and of the reply, as nano's recipe has it; the middle of a longer text is left out."""
BATCH = 32
LEARNING_RATE = 2.5e-4
WARMUP = 0.04
CUT = Target("expected-f1")


class Text:
    """What `middle_out` asks of an encoder."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def offsets(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).offsets


class Encoder(torch.nn.Module):
    """all-MiniLM-L6-v2, mean of the last states, one output for each task."""

    def __init__(self):
        super().__init__()
        raw = json.loads((minilm.folder() / "config.json").read_text(encoding="utf-8"))
        raw.pop("architectures", None)
        raw |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        config = BertConfig(**raw, attn_implementation=best_attention())
        self.bert = BertModel(config, add_pooling_layer=False)
        weights = load_file(minilm.folder() / "model.safetensors")
        self.bert.load_state_dict({k.removeprefix("bert."): v for k, v in weights.items()}, strict=False)
        self.heads = torch.nn.Linear(config.hidden_size, len(TASKS))

    def forward(self, ids, mask, kinds):
        states = self.bert(input_ids=ids, attention_mask=mask, token_type_ids=kinds).last_hidden_state.float()
        return self.heads((states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True))


def load_tokenizer():
    """The base's own tokenizer, without its limits."""
    tokenizer = Tokenizer.from_file(str(minilm.folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokens_of(exchange, tokenizer):
    """Token ids and the kind of each: 0 request, 1 reply."""
    texts = [exchange.prompt] if exchange.response is None else [exchange.prompt, exchange.response]
    pair = [middle_out(text, JUDGED_TOKENS, Text(tokenizer)) for text in texts]
    encoded = tokenizer.encode(*pair)
    return encoded.ids[:512], encoded.type_ids[:512]


def batch_of(rows):
    """Token rows as padded tensors."""
    longest = max(len(ids) for ids, _ in rows)
    ids, mask, kinds = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(3))
    for i, (row, kind) in enumerate(rows):
        ids[i, : len(row)], kinds[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), torch.tensor(kind), 1
    return ids, mask, kinds


def gold_of(example):
    """1 = the positive label, 0 = the other, nan = not annotated; one number a task."""
    return [float("nan") if (g := example.gold[t]) is None else float(g == TASKS[t].positive) for t in TASKS]


def train(run, out, seed=42):
    """One epoch over the run's training rows; writes weights and calibration to `out`."""
    torch.manual_seed(seed)
    tokenizer, model = load_tokenizer(), Encoder()
    examples = [trace.example for trace in read_nouns(Trace, Path(run) / "synthesize" / "traces.jsonl")]
    rows = [tokens_of(e.exchange, tokenizer) for e in examples]
    gold = torch.tensor([gold_of(e) for e in examples])
    order = list(RowOrder([len(ids) for ids, _ in rows], size=BATCH, seed=seed, grouped=True))
    passes = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, (0.9, 0.98), weight_decay=0.01, fused=True)
    rise = max(1, round(WARMUP * len(passes)))
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / rise) * max(0.0, 1 - max(0, s - rise) / max(1, len(passes) - rise))
    )
    began, kept = time.monotonic(), []
    for step, chosen in enumerate(passes, 1):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(*batch_of([rows[i] for i in chosen])).float()
        known = ~gold[chosen].isnan()
        loss = functional.binary_cross_entropy_with_logits(logits[known], gold[chosen][known])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        kept.append(loss.item())
        if step % 50 == 0 or step == len(passes):
            left = (time.monotonic() - began) / step * (len(passes) - step) / 60
            print(f"{step}/{len(passes)}  loss {np.mean(kept[-50:]):.3f}  {left:.1f} min left", file=sys.stderr)
    Path(out).mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), Path(out) / "model.safetensors")
    fits = calibrate(model.eval(), tokenizer, list(read_nouns(Example, Path(run) / "synthesize" / "validation.jsonl")))
    about = {"fits": fits, "rows": len(rows), "steps": len(passes), "seconds": time.monotonic() - began}
    (Path(out) / "encoder.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def margins(model, tokenizer, exchanges):
    """Logits, (exchanges, tasks)."""
    rows = [tokens_of(e, tokenizer) for e in exchanges]
    found = np.zeros((len(rows), len(TASKS)))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            found[chosen] = model(*batch_of([rows[i] for i in chosen])).float().numpy()
    return found


def calibrate(model, tokenizer, examples):
    """Slope, offset and threshold of each task with both classes, by nano's rule."""
    asked = list(as_asked(examples))
    raw = margins(model, tokenizer, [e.exchange for e in asked])
    gold = np.array([gold_of(e) for e in asked])
    fits = {}
    for column, task in enumerate(TASKS):
        known = ~np.isnan(gold[:, column])
        if len(set(gold[known, column])) == 2:
            fitted = fit(raw[known, column], gold[known, column] > 0, task=task, mode="instant", target=CUT)
            fits[task.value] = {"params": fitted.curve.params, "threshold": fitted.curve.threshold}
    return fits


class EncoderGuard(Judging):
    """Scores the three tasks in one pass."""

    name = "encoder"

    def __init__(self, folder=None):
        if not folder or not (Path(folder) / "encoder.json").exists():
            raise ConfigError(
                "train the encoder first: python examples/encoder_guard.py train RUN OUT; then folder=OUT"
            )
        fits = json.loads((Path(folder) / "encoder.json").read_text(encoding="utf-8"))["fits"]
        self.curves = {Task(name): Curve("platt", tuple(f["params"]), f["threshold"]) for name, f in fits.items()}
        self.tasks = tuple(self.curves)
        self.tokenizer, self.model = load_tokenizer(), Encoder()
        self.model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
        self.model.eval()

    def judge(self, exchanges):
        raw = margins(self.model, self.tokenizer, exchanges)
        return [self._verdict(e, raw[i]) for i, e in enumerate(exchanges)]

    def _verdict(self, exchange, raw):
        scores, labels = dict.fromkeys(t.value for t in TASKS), {}
        for column, task in enumerate(TASKS):
            if task in exchange.tasks and task in self.tasks:
                p = self.curves[task].probability(raw[column])
                scores[task.value] = p
                labels[task] = TASKS[task].positive if p >= self.curves[task].threshold else TASKS[task].negative
        found = Labels.of(labels)
        return Verdict(
            exchange_id=exchange.id,
            guard=self.name,
            mode="instant",
            status="ok",
            labels=found,
            scores=scores,
            calibrated=True,
            flagged="harmful" in (found.prompt_harm, found.response_harm),
        )


def label(run, out):
    """`OUT/soft_labels.jsonl`: a verdict for every training row of the run."""
    guard = EncoderGuard(out)
    exchanges = [trace.example.exchange for trace in read_nouns(Trace, Path(run) / "synthesize" / "traces.jsonl")]
    unfinished = Path(out) / "soft_labels.jsonl.tmp"
    with open(unfinished, "w", encoding="utf-8") as stream:
        for start in range(0, len(exchanges), 2048):
            for verdict in guard.judge(exchanges[start : start + 2048]):
                stream.write(json.dumps({"exchange_id": verdict.exchange_id, "scores": verdict.scores}) + "\n")
    os.replace(unfinished, Path(out) / "soft_labels.jsonl")


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("train", "label"):
        sys.exit("usage: python examples/encoder_guard.py train|label RUN OUT")
    {"train": train, "label": label}[sys.argv[1]](*sys.argv[2:])
