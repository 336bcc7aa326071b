"""F1 against the training rows used: an eighth, a quarter, a half and all of them, at random and the hard ones first.

    guardreasoner synthesize nano-research --out SOURCE --data DATA
    python bench/rows.py SOURCE --exchanges > rows.jsonl
    guardreasoner batch rows.jsonl verdicts.jsonl --guard examples/tfidf_guard.py:TfidfGuard
    python bench/rows.py SOURCE --hard verdicts.jsonl --out RUN --data DATA [--rows 8000] [--limit 120]

nano's base on labels alone (`configs/labels.yaml`), one epoch, so fewer rows are also fewer steps. Hard = the P of
another guard is far from gold. `--soft VERDICTS` adds a run on all rows whose verdict words are learned half from gold
and half from that guard's P. Cuts are fitted on the first `--left-out` rows of left-out sources; where a task is ranked
the wrong way round there, the likelier word is the verdict. Benchmarks are `--limit` rows each, stratified by gold.
Finished runs are kept; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from guardreasoner.errors import DataError
from guardreasoner.evaluate import calibrate
from guardreasoner.evaluate.run import evaluate
from guardreasoner.export import onnx
from guardreasoner.guards.load import load_guard
from guardreasoner.records import dumps, read_jsonl, read_nouns, write_jsonl
from guardreasoner.reproduce import benchmarks_of
from guardreasoner.train.recipe import Recipe, load_recipe
from guardreasoner.train.settings import SftConfig
from guardreasoner.train.sft import run_sft
from guardreasoner.types import Trace

SHARES = (8, 4, 2, 1)
TASKS = ("prompt_harm", "refusal", "response_harm")


def runs(base: SftConfig, args: argparse.Namespace) -> Iterator[tuple[str, SftConfig]]:
    """Name and configuration of every run."""
    for share in SHARES:
        for by in ("random", "hard") if share > 1 and args.hard else ("random",):
            hard = str(args.hard) if by == "hard" else None
            yield f"1-{share}-{by}", replace(base, subset=args.rows // share, subset_by=by, difficulty=hard)
    if args.soft:
        yield "1-1-soft", replace(base, subset=args.rows, soft_labels=str(args.soft))


def one(recipe: Recipe, config: SftConfig, folder: Path, args: argparse.Namespace) -> dict[str, object]:
    """Train on the first `--rows` rows, onnx, calibrate and evaluate; what is finished is not done again."""
    made = folder / "synthesize"
    made.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(args.source / "synthesize" / "manifest.json", made / "manifest.json")
    for name, most in (("validation.jsonl", args.left_out), ("traces.jsonl", args.rows)):
        rows = (row for _, row in read_jsonl(args.source / "synthesize" / name))
        write_jsonl(made / name, islice(rows, most))
    run_sft(config, recipe.model, out=folder)
    onnx.run(folder / "sft" / "checkpoint", folder, recipe.export)
    left_out = calibrated(folder, recipe)
    guard = load_guard(str(folder / "export" / "model"), mode="instant")
    examples = benchmarks_of(recipe.evaluate, args.data)
    result = evaluate(guard, examples, folder / "evaluate", config={"mode": "instant"}, limit=args.limit)
    guard.close()
    sft = json.loads((folder / "sft" / "manifest.json").read_text())
    return {
        "steps": sft["steps"],
        "left_out": left_out,
        "f1": {m.task.value: m.weighted_f1 for m in result.averages},
        "auroc": {m.task.value: m.macro_auroc for m in result.averages},
    }


def calibrated(folder: Path, recipe: Recipe) -> dict[str, float]:
    """AUROC on left-out sources by task; empty where a task is ranked the wrong way round and nothing can be fitted."""
    try:
        fits = calibrate.run(folder, recipe.calibrate)["fits"]
    except DataError as error:
        print(error, file=sys.stderr)
        return {}
    return {f["task"]: f["auroc"] for f in fits}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--hard", type=Path, help="verdicts with scores on the training rows")
    parser.add_argument("--soft", type=Path, help="verdicts with scores on the training rows")
    parser.add_argument("--exchanges", action="store_true", help="only write the training rows, for `batch`")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=8_000)
    parser.add_argument("--left-out", type=int, default=1_000)
    parser.add_argument("--limit", type=int, default=120)
    args = parser.parse_args()
    if args.exchanges:
        for trace in islice(read_nouns(Trace, args.source / "synthesize" / "traces.jsonl"), args.rows):
            exchange = trace.example.exchange
            print(dumps({"id": exchange.id, "prompt": exchange.prompt, "response": exchange.response}))
        return
    if not args.out or not args.data:
        parser.error("give --out and --data")
    recipe = load_recipe(Path(__file__).parent / "configs" / "labels.yaml")
    print("| run | steps | left-out AUROC | benchmark F1 | benchmark AUROC |\n|---|---|---|---|---|")
    for name, config in runs(recipe.sft, args):
        print(f"{name} ...", file=sys.stderr)
        found = one(recipe, config, args.out / name, args)
        print(f"| {name} | {found['steps']} | {shown(found['left_out'], 3)} | {shown(found['f1'], 1)} | "
              f"{shown(found['auroc'], 3)} |", flush=True)  # fmt: skip


def shown(values: object, digits: int) -> str:
    """Prompt / refusal / response."""
    assert isinstance(values, dict)
    return " / ".join("" if values.get(t) is None else f"{values[t]:.{digits}f}" for t in TASKS)


if __name__ == "__main__":
    main()
