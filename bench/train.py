"""Training speed on random weights of real shapes: R-SFT packed and not, stock TRL beside it, HS-DPO, and sampling.

    python bench/train.py --shape 135m --shape 1b [--steps 10] [--batch 8] [--out TABLE.md]

Rows are random tokens with the length distribution of the paper's data (prompts around 500 tokens, answers around 255).
Model FLOPs utilisation is 6 x parameters x tokens/s over the device's peak. NOT MEASURED on a GPU so far: no numbers of
this script are published anywhere; `--shape tiny` only shows on a CPU that it runs. `bench/gpu.sh` is this script with
everything that a GPU can show, in at most ten minutes.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer, pack_dataset

from guardreasoner.engines.load import load_engine
from guardreasoner.generation import Free, Scaffold
from guardreasoner.train import dpo_trainer, sft_trainer
from guardreasoner.train import trainer as training
from guardreasoner.train.attention import best_attention
from guardreasoner.train.rows import NO_LABEL, RowMaker
from guardreasoner.train.settings import DpoConfig, SftConfig, TrainingConfig
from guardreasoner.train.tiny import build_tokenizer

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "heads": (4, 2)},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "heads": (9, 3)},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "heads": (32, 8)},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "heads": (24, 8)},
}
"""SmolLM2 and Llama 3.2 as their configurations say."""
VOCABULARY = {"tiny": 600, "135m": 49_152}
"""Of the others: 128,256."""
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 operations per second, by data sheet."""


def model_of(shape: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(SHAPES[shape])
    heads, kv_heads = sizes.pop("heads")
    config = LlamaConfig(
        **sizes,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=VOCABULARY.get(shape, 128_256),
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


LINES: list[str] = []


def show(name: str, tokens: float, parameters: int, seconds: float, memory: float, unit: str = "tokens/s") -> None:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    peak = next((flops for key, flops in PEAK.items() if key in device), None)
    used = f"{6 * parameters * tokens / seconds / peak:.1%}" if peak and unit == "tokens/s" else "-"
    tell(f"| {name} | {tokens / seconds:,.1f} {unit} | {used} | {memory:.1f} GB |")


def tell(line: str) -> None:
    """One line of the table, on the screen at once."""
    LINES.append(line)
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, action="append", help="one or several (default 1b)")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--longest", type=int, default=2048, help="tokens of the longest row")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    tell(
        f"{device}, torch {torch.__version__}, attention {best_attention()}, {args.steps} steps of {args.batch} rows\n"
    )
    tell("| what | speed | MFU | memory |\n|---|---|---|---|")
    for shape in args.shape or ["1b"]:
        for part in (_all_sft, _all_dpo, _all_sampling):
            try:
                part(shape, args)
            except Exception as error:  # a part that cannot run here is a line of the table, and the rest still runs
                tell(f"| {shape}: {part.__name__.removeprefix('_all_')} | failed: {type(error).__name__}: "
                     f"{' '.join(str(error).split())[:120]} | | |")  # fmt: skip
            if args.out:
                args.out.write_text("\n".join(LINES) + "\n")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()


def _all_sft(shape: str, args: argparse.Namespace) -> None:
    tokenizer, longest = build_tokenizer(), args.longest
    rows = Dataset.from_list(rows_of(args.batch * args.steps, VOCABULARY.get(shape, 128_256), longest))
    config = SftConfig(batch=args.batch, micro_batch=args.batch, max_steps=args.steps, log_every=1000, save_every=10**9)
    maker = RowMaker(tokenizer, "raw", longest)
    with tempfile.TemporaryDirectory() as place:
        for packed in (True, False):
            model = model_of(shape)
            parameters = sum(p.numel() for p in model.parameters())
            seconds, memory, per_step = _sft(
                model, config, rows, maker, packed=packed, folder=Path(place) / str(packed)
            )
            show(f"{shape}: R-SFT, {'packed' if packed else 'grouped'}", per_step, parameters, seconds, memory)
            del model
        seconds, memory = _stock(shape, config, rows, tokenizer, Path(place) / "stock")
        mean = sum(rows["length"]) / len(rows)
        show(f"{shape}: stock TRL, not packed", mean * args.batch, parameters, seconds, memory)


def _all_dpo(shape: str, args: argparse.Namespace) -> None:
    rows = rows_of(4 * args.steps, VOCABULARY.get(shape, 128_256), args.longest)
    with tempfile.TemporaryDirectory() as place:
        seconds, memory = _dpo(shape, rows, build_tokenizer(), args.steps, Path(place))
        show(f"{shape}: HS-DPO, one pair per pass", 1, 0, seconds, memory, unit="pairs/s")


def _all_sampling(shape: str, args: argparse.Namespace) -> None:
    """k = 4 answers of some prompts, on vLLM where it is installed, else on the hf engine."""
    name = "vllm" if find_spec("vllm") and torch.cuda.is_available() else "hf"
    prompts = [(Scaffold(f"{number} " + "some words of a prompt " * 60),) for number in range(args.batch * args.steps)]
    with tempfile.TemporaryDirectory() as place:
        model_of(shape).save_pretrained(place)
        build_tokenizer().save_pretrained(place)
        torch.cuda.empty_cache()
        engine = load_engine(name, model=place)
        tokens = 128 if torch.cuda.is_available() else 8
        engine.run(prompts[:2], (Free(4),), n=2, temperature=0.7)
        began = time.monotonic()
        answers = engine.run(prompts, (Free(tokens),), n=4, temperature=0.7)
        seconds = time.monotonic() - began
        engine.close()
    written = sum(c.completion_tokens for row in answers for c in row)
    show(f"{shape}: sampling on {name}, {4 * len(prompts)} answers", written, 0, seconds,
         training.peak_memory_bytes() / 1e9, unit="sampled tokens/s")  # fmt: skip


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
