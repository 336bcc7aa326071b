"""Training speed on random weights of the paper's shapes: R-SFT packed and not, stock TRL beside it, and HS-DPO.

    python bench/train.py --shape 1b [--steps 10] [--batch 8]

Rows are random tokens with the length distribution of the paper's data (prompts around 500 tokens, answers around 255).
Model FLOPs utilisation is 6 x parameters x tokens/s over the device's peak. NOT MEASURED on a GPU so far: no numbers of
this script are published anywhere; `--shape tiny` only shows on a CPU that it runs.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer, pack_dataset

from guardreasoner.train import dpo_trainer, sft_trainer
from guardreasoner.train import trainer as training
from guardreasoner.train.rows import NO_LABEL, RowMaker
from guardreasoner.train.settings import DpoConfig, SftConfig, TrainingConfig
from guardreasoner.train.tiny import build_tokenizer

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "heads": (4, 2)},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "heads": (32, 8)},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "heads": (24, 8)},
}
"""Llama 3.2 as its configurations say; vocabulary 128,256."""
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 operations per second, by data sheet."""


def model_of(shape: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    from guardreasoner.train.attention import best_attention

    sizes = dict(SHAPES[shape])
    heads, kv_heads = sizes.pop("heads")
    config = LlamaConfig(
        **sizes,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=600 if shape == "tiny" else 128_256,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        attn_implementation=best_attention(),
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return LlamaForCausalLM(config)


def rows_of(count: int, vocabulary: int, longest: int) -> list[dict[str, Any]]:
    lot = random.Random(0)
    rows = []
    for _ in range(count):
        prompt = min(longest - 400, max(80, int(lot.lognormvariate(6.0, 0.6))))
        answer = min(400, max(40, int(lot.gauss(255, 60))))
        ids = [lot.randrange(10, vocabulary) for _ in range(prompt + answer)]
        labels = [NO_LABEL] * prompt + ids[prompt:]
        rows.append({"input_ids": ids, "labels": labels, "verdict": [0] * len(ids), "length": len(ids)})
    return rows


def timed(trainer: Any) -> tuple[float, float]:
    """Seconds of the second half of the steps (the first half warms up), and peak memory in GB."""
    marks: list[float] = []

    class Clock(training.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks.append(time.monotonic())

    trainer.add_callback(Clock())
    training.be_quiet(trainer)
    trainer.train()
    half = len(marks) // 2
    return (marks[-1] - marks[half - 1]) / (len(marks) - half), training.peak_memory_bytes() / 1e9


def show(name: str, tokens: float, parameters: int, seconds: float, memory: float, unit: str = "tokens/s") -> None:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    peak = next((flops for key, flops in PEAK.items() if key in device), None)
    used = f"{6 * parameters * tokens / seconds / peak:6.1%}" if peak and unit == "tokens/s" else "     -"
    print(f"{name:32}{tokens / seconds:12,.1f} {unit:10}{used:>8} MFU{memory:8.1f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    tokenizer = build_tokenizer()
    longest = 2048
    rows = Dataset.from_list(rows_of(args.batch * args.steps, 600 if args.shape == "tiny" else 128_256, longest))
    config = SftConfig(batch=args.batch, micro_batch=args.batch, max_steps=args.steps, log_every=1000, save_every=10**9)
    maker = RowMaker(tokenizer, "raw", longest)
    mean = sum(rows["length"]) / len(rows)
    with tempfile.TemporaryDirectory() as place:
        for packed in (True, False):
            model = model_of(args.shape)
            parameters = sum(p.numel() for p in model.parameters())
            seconds, memory, per_step = _sft(
                model, config, rows, maker, packed=packed, folder=Path(place) / str(packed)
            )
            show(f"R-SFT, {'packed' if packed else 'grouped'}", per_step, parameters, seconds, memory)
            del model
        seconds, memory = _stock(args.shape, config, rows, tokenizer, Path(place) / "stock")
        show("stock TRL, not packed", mean * args.batch, parameters, seconds, memory)
        seconds, memory = _dpo(args.shape, rows, tokenizer, args.steps, Path(place) / "dpo")
        show("HS-DPO, one pair per pass", 1, parameters, seconds, memory, unit="pairs/s")


def _arguments(config: TrainingConfig, folder: Path) -> dict[str, Any]:
    return {**training.arguments(config, folder), "save_strategy": "no"}


def _sft(model: Any, config: SftConfig, rows: Any, maker: RowMaker, *, packed: bool, folder: Path) -> Any:
    data, size = rows, config.micro_batch
    if packed:
        columns = rows.remove_columns(["length"])
        data = pack_dataset(columns, maker.max_tokens, "bfd")
        data = data.add_column("length", [len(ids) for ids in data["input_ids"]])
        size = max(1, round(size * sum(rows["length"]) / len(rows) / maker.max_tokens))
    config = replace(config, batch=size, micro_batch=size, max_steps=min(config.max_steps or 1, len(data) // size))
    trainer = sft_trainer.build(
        model,
        maker.tokenizer,
        _arguments(config, folder),
        config=config,
        rows=data,
        validation=None,
        maker=maker,
        run=None,
    )
    seconds, memory = timed(trainer)
    return seconds, memory, sum(data["length"]) / len(data) * size


def _stock(shape: str, config: SftConfig, rows: Any, tokenizer: Any, folder: Path) -> tuple[float, float]:
    tokenizer.pad_token = tokenizer.eos_token
    trainer = SFTTrainer(
        model=model_of(shape),
        args=TrlConfig(**_arguments(config, folder), max_length=None),
        train_dataset=rows.remove_columns(["verdict", "length"]),
        processing_class=tokenizer,
    )
    return timed(trainer)


def _dpo(shape: str, rows: Any, tokenizer: Any, steps: int, folder: Path) -> tuple[float, float]:
    pairs = [
        {
            "prompt_ids": row["input_ids"][:-255],
            "chosen_ids": row["input_ids"][-255:],
            "rejected_ids": row["input_ids"][-240:],
            "weight": 1.0,
            "length": row["length"],
        }
        for row in rows
        if row["length"] > 300
    ]
    config = DpoConfig(batch=1, micro_batch=1, max_steps=steps, log_every=1000, save_every=10**9)
    trainer = dpo_trainer.build(
        model_of(shape),
        tokenizer,
        _arguments(config, folder),
        config=config,
        rows=Dataset.from_list(pairs[:steps]),
        run=None,
    )
    return timed(trainer)


if __name__ == "__main__":
    main()
