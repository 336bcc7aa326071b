"""Mining at the paper's scale: 127,544 examples x 16 answers, beside the released per-row logic written out anew.

    python bench/mine.py [--examples 127544] [--compare 4000] [--keep DIR]

The rows are made here: four models, four answers each, lengths around the paper's 255 tokens (about 1,100 characters).
The time of mining includes reading the files; the released logic is timed on rows that are in memory already. Peak
memory is that of the process that mines.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guardreasoner.records import dumps
from guardreasoner.types import Example, Exchange, Labels, Trace

MODELS = ("sft", "diversity-1", "diversity-2", "diversity-3")
K = 4
FIELDS = ("Request", "Response", "Completion")
WORDS = [
    "the",
    "request",
    "asks",
    "about",
    "a",
    "common",
    "task",
    "and",
    "shows",
    "no",
    "sign",
    "of",
    "harm",
    "so",
    "an",
    "answer",
    "would",
    "not",
    "put",
    "anyone",
    "at",
    "risk",
]


def reasoning(lot: random.Random) -> str:
    """About 1,000 characters of steps."""
    lines: list[str] = []
    for task in (1, 2, 3):
        lines.append(f"# Task {task}")
        for step in range(1, lot.randrange(3, 5)):
            lines += [f"## Reasoning Step {step}", " ".join(lot.choices(WORDS, k=lot.randrange(12, 24))) + "."]
    return "\n".join(lines)


def answer(lot: random.Random, bodies: list[str], wrong: float) -> str:
    """One sampled answer; some are wrong in a task, some lack a field."""
    request = "unharmful" if lot.random() < wrong else "harmful"
    reply = "harmful" if lot.random() < wrong else "unharmful"
    last = "" if lot.random() < 0.02 else f"Response: {reply}\n"
    return f"{lot.choice(bodies)}\n---\n\nAnswers: \nRequest: {request}\nCompletion: refusal\n{last}"


def write_rows(folder: Path, examples: int) -> None:
    """The files that mining reads, model after model as sampling writes them."""
    lot = random.Random(0)
    bodies = [reasoning(lot) for _ in range(500)]
    (folder / "synthesize").mkdir(parents=True)
    (folder / "sample").mkdir()
    labels = Labels("harmful", "refusal", "unharmful")
    with open(folder / "synthesize" / "traces.jsonl", "w", encoding="utf-8") as stream:
        for number in range(examples):
            exchange = Exchange(f"e-{number}", "How is it made?" * 8, "I cannot help." * 4, source=f"s{number % 4}")
            stream.write(dumps(Trace(Example(exchange, labels), lot.choice(bodies) + "\n", "bench", "1")) + "\n")
    with open(folder / "sample" / "samples.jsonl", "w", encoding="utf-8") as stream:
        for model in MODELS:
            for number in range(examples):
                wrong = 0.5 if number % 6 == 0 else 0.0
                texts = [answer(lot, bodies, wrong) for _ in range(K)]
                row = {"example_id": f"e-{number}", "model": model, "temperature": 0.7, "texts": texts}
                stream.write(json.dumps(row) + "\n")


def official(label: str, outputs: list[str], prompt: str) -> dict[str, Any] | None:
    """The released miner for one row (`hard_sample_mining.py`), written out anew."""
    truth = {name: re.search(name + r":\s*(\w+)", label).group(1) for name in FIELDS}  # type: ignore[union-attr]
    read: dict[str, list[str]] = {name: [] for name in FIELDS}
    kept: list[str] = []
    for output in outputs:
        found = [re.search(name + r":\s*(\w+)", output) for name in FIELDS]
        if all(found):
            for name, match in zip(FIELDS, found, strict=True):
                read[name].append(match.group(1))  # type: ignore[union-attr]
            kept.append(output)
    first = re.search(r"AI assistant:\s*(\w+)", prompt)
    for name in FIELDS:
        if name != "Request" and (truth[name] == "None" or (first and first.group(1) == "None")):
            continue
        wrong = [i for i, word in enumerate(read[name]) if word != truth[name]]
        right = [i for i, word in enumerate(read[name]) if word == truth[name]]
        if wrong and right:
            chosen, rejected = (max(x, key=lambda i: len(kept[i])) for x in (right, wrong))
            return {"chosen": kept[chosen], "rejected": kept[rejected], "weight": len(wrong) - len(right)}
    return None


def rows_in_memory(folder: Path, count: int) -> Iterator[tuple[str, list[str], str]]:
    """Label text, all outputs and prompt of the first examples."""
    outputs: dict[str, list[str]] = {f"e-{number}": [] for number in range(count)}
    with open(folder / "sample" / "samples.jsonl", encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            if row["example_id"] in outputs:
                outputs[row["example_id"]] += row["texts"]
    label = "Answers: \nRequest: harmful\nCompletion: refusal\nResponse: unharmful\n"
    for texts in outputs.values():
        yield label, texts, "Human user:\nHow?\n\nAI assistant:\nI cannot help.\n\n"


def mine_here(folder: Path, rule: str) -> None:
    """Mine in this process and print what it took, as JSON."""
    from guardreasoner.train.mine import MineConfig, run_mine

    began, cpu = time.monotonic(), time.process_time()
    manifest = run_mine(MineConfig(rule=rule), out=folder, fresh=True)  # type: ignore[arg-type]
    used = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
    used["gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({**used, "pairs": manifest["counts"]["out"]}))


def mine_apart(folder: Path, rule: str) -> dict[str, float]:
    """Mine in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--mine", str(folder), "--rule", rule]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=127_544)
    parser.add_argument("--compare", type=int, default=4_000, help="examples on which the released logic is timed")
    parser.add_argument("--mine", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rule", default="ours", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.mine:
        mine_here(args.mine, args.rule)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        write_rows(folder, args.examples)
        answers = args.examples * len(MODELS) * K
        size = (folder / "sample" / "samples.jsonl").stat().st_size / 1e9
        print(f"{args.examples:,} examples, {answers:,} answers, {size:.2f} GB")
        print(f"{'':34}{'us/answer':>10}{'seconds':>9}{'CPU s':>8}{'peak GB':>9}{'pairs':>8}")
        for rule in ("ours", "official"):
            m = mine_apart(folder, rule)
            each = m["cpu"] / answers * 1e6
            print(f"{f'mine, rule {rule}, with reading':34}{each:10.1f}{m['seconds']:9.1f}{m['cpu']:8.1f}"
                  f"{m['gb']:9.2f}{int(m['pairs']):8}")  # fmt: skip
        rows = list(rows_in_memory(folder, min(args.compare, args.examples)))
        cpu = time.process_time()
        pairs = sum(1 for row in rows if official(*row))
        each = (time.process_time() - cpu) / (len(rows) * len(MODELS) * K) * 1e6
        print(f"{'released logic, rows in memory':34}{each:10.1f}{'':9}{'':8}{'':9}{pairs:8}  ({len(rows):,} examples)")


if __name__ == "__main__":
    main()
