"""An ablation: the five models of the paper's Table 3, trained and evaluated seed by seed, then compared.

    python bench/ablation/ablation.py [RECIPE] --out RUN --seeds 3 [--data DATA] [--dry-run] [--fresh]

RECIPE is a file like `ablation.yaml` beside this script (the default). Its variants `baseline` and `baseline-mix` are
the label-only rows, `sft` is R-SFT, and HS-DPO is run twice: on the samples of `sft` alone, and on those of all
`sample.models`.

    DIR/seed-1/synthesize  sft  sft-baseline  sft-baseline-mix  sft-VARIANT...  sample
              /mine-self  mine-ensemble  dpo-self  dpo-ensemble  evaluate/MODEL-MODE
    DIR/seed-2/...
    DIR/ablation.json  ablation.md      written anew after each seed, from all seeds that are finished

Every stage resumes by itself, so the same command goes on after a kill, and more seeds go on after the last.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablation_compare import CONTESTANTS, Reading, Seed, read_seed
from ablation_page import HEADS, as_data, as_markdown

from guardreasoner.cli.stages import show_manifest
from guardreasoner.data.benchmarks import data_folder
from guardreasoner.errors import ConfigError, DataError, GuardReasonerError, RunFolderError
from guardreasoner.evaluate.run_benchmarks import evaluate
from guardreasoner.guards.base import Guard
from guardreasoner.guards.load import load_guard
from guardreasoner.records import write_atomic
from guardreasoner.reproduce import Manifest, benchmarks_of, sample_stage, synthesize_stage
from guardreasoner.train.plan import print_outlook
from guardreasoner.train.recipe import Recipe, load_recipe
from guardreasoner.types import Example, Mode

RESULT, PAGE = "ablation.json", "ablation.md"
HS_DPO = {"self": ("sft",), "ensemble": ()}
"""How hard samples are found -> whose answers are mined; empty = everybody's."""


def ablate(
    recipe: Recipe, seeds: int, *, out: str | Path, data_dir: Path | None = None, fresh: bool = False
) -> Iterator[Manifest]:
    """Run seeds 1 to `seeds` of an ablation; yields the manifest of each stage as it ends.

    Args:
        recipe: see `check`.
        seeds: how many; more can be added to a finished run.
        out: the run's folder.
        data_dir: where the recipe's data folders and the benchmarks lie.
        fresh: start every stage over.

    Raises:
        ConfigError: the recipe cannot be run as an ablation.
        GuardReasonerError: a stage cannot go on; the same call again resumes there.
    """
    check(recipe, seeds)
    root = Path(out)
    examples = benchmarks_of(recipe.evaluate, data_dir)
    for seed in range(1, seeds + 1):
        folder = root / f"seed-{seed}"
        yield from _train(seeded(recipe, seed), folder, data_dir=data_dir, fresh=fresh)
        yield from _evaluate(recipe, folder, examples, fresh=fresh)
        if fresh or not _concluded(root):
            conclude(root)


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """The same recipe with the seed added to every seed in it: rows, order, samples and pairs are drawn anew.

    What shares a seed in the recipe still does, so the models of one seed stay paired.
    """
    return replace(
        recipe,
        variants={name: replace(one, seed=one.seed + seed) for name, one in recipe.variants.items()},
        **{
            name: replace(section, seed=section.seed + seed)
            for name in ("data", "synthesize", "sft", "sample", "mine", "dpo")
            for section in (getattr(recipe, name),)
        },
    )


def training_stages(recipe: Recipe) -> tuple[str, ...]:
    """The folders of one seed that hold a training run."""
    return (*map(recipe.folder, ("sft", *recipe.variants)), *(f"dpo-{how}" for how in HS_DPO))


def _train(recipe: Recipe, root: Path, *, data_dir: Path | None, fresh: bool) -> Iterator[Manifest]:
    from guardreasoner.train.dpo import run_dpo
    from guardreasoner.train.mine import run_mine
    from guardreasoner.train.sft import run_sft

    yield synthesize_stage(recipe, root, data_dir=data_dir, fresh=fresh)
    for name in ("sft", *recipe.variants):
        yield _whole(run_sft(recipe.variant(name), recipe.model, out=root, stage=recipe.folder(name), fresh=fresh))
    yield sample_stage(recipe, root, fresh=fresh)
    for how, models in HS_DPO.items():
        mined, stage = f"mine-{how}", f"dpo-{how}"
        yield run_mine(replace(recipe.mine, models=models), out=root, stage=mined, fresh=fresh)
        yield _whole(run_dpo(recipe.dpo, recipe.model, out=root, stage=stage, mined=mined, fresh=fresh))


def check(recipe: Recipe, seeds: int) -> None:
    """Refuse a recipe that is not the design of the paper's Table 3.

    Raises:
        ConfigError: a variant is missing or trained otherwise, or the two kinds of HS-DPO would be one.
    """
    if seeds < 1:
        raise ConfigError("--seeds must be at least 1")
    for name in ("baseline", "baseline-mix"):
        config = recipe.variants.get(name)
        if config is None or (config.reasoning, config.labels_only) != (0, 1):
            raise ConfigError(f"an ablation needs the variant {name}: {{reasoning: 0, labels_only: 1}}")
    if len(recipe.variants["baseline"].only) != 1:
        raise ConfigError("variants.baseline of an ablation trains on one source; name it in `only`")
    if "sft" not in recipe.sample.models or len(recipe.sample.models) < 2:
        raise ConfigError("sample.models of an ablation are sft and at least one variant: the ensemble")
    if recipe.mine.models:
        raise ConfigError("mine.models of an ablation stays empty: it mines twice, from sft alone and from all")


def _whole(manifest: Manifest | None) -> Manifest:
    if manifest is None:
        raise ConfigError("an ablation trains in one process; start it without torchrun")
    return manifest


def _evaluate(
    recipe: Recipe, root: Path, examples: Mapping[str, Sequence[Example]], *, fresh: bool
) -> Iterator[Manifest]:
    """Every model in its own mode and in `instant`, on rows that are the same for all models and seeds."""
    for row in CONTESTANTS:
        checkpoint = root / (row.key if row.key.startswith("dpo-") else recipe.folder(row.key)) / "checkpoint"
        for mode in dict.fromkeys((row.mode, "instant")):
            folder = root / "evaluate" / f"{row.key}-{mode}"
            asked = {"mode": mode, "engine": recipe.evaluate.engine, "limit": recipe.evaluate.limit}
            if fresh or not (folder / "manifest.json").exists():
                with _guard(recipe, checkpoint, row.key, mode) as guard:
                    evaluate(guard, examples, folder, config=asked, limit=recipe.evaluate.limit, fresh=fresh)
            manifest = _read(folder / "manifest.json")
            _same(manifest["config"], asked, folder)
            yield manifest


@contextmanager
def _guard(recipe: Recipe, checkpoint: Path, name: str, mode: Mode) -> Iterator[Guard]:
    """A checkpoint as a guard; for `onnx` it is exported for as long as it is asked."""
    from guardreasoner.export.onnx import export

    model = checkpoint
    if recipe.evaluate.engine == "onnx":
        model = checkpoint.parent / "export"
        export(checkpoint, model, precision=recipe.export.precision, check=recipe.export.check)
    guard = load_guard(str(model), mode=mode, engine=recipe.evaluate.engine)
    guard.name = name
    try:
        yield guard
    finally:
        guard.close()
        if model != checkpoint:
            shutil.rmtree(model, ignore_errors=True)


def _same(before: Mapping[str, Any], asked: Mapping[str, Any], folder: Path) -> None:
    for key, value in asked.items():
        if before.get(key) != value:
            raise RunFolderError(
                f"{folder} was made with another config key {key!r} ({before.get(key)!r} there, {value!r} now); "
                "give another --out, or --fresh to start over"
            )


def conclude(out: str | Path) -> dict[str, Any]:
    """Compare the models over all finished seeds of a run; writes `ablation.json` and `ablation.md`.

    Raises:
        DataError: no seed is finished, or seeds were evaluated on different rows.
    """
    root = Path(out)
    folders = {n: root / f"seed-{n}" for n in finished(root)}
    if not folders:
        raise DataError("no seed of this ablation is finished; run the same command again", file=str(root))
    seeds: dict[int, dict[Reading, Seed]] = {n: {r: read_seed(f, r) for r in HEADS} for n, f in folders.items()}
    data = as_data(seeds, _facts(list(folders.values())))
    write_atomic(root / PAGE, as_markdown(data))
    write_atomic(root / RESULT, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    return data


def _concluded(root: Path) -> bool:
    """Whether the result is there and speaks of every seed that is finished."""
    path = root / RESULT
    return path.exists() and (root / PAGE).exists() and _read(path)["seeds"] == finished(root)


def finished(root: Path) -> list[int]:
    """The seeds of a run whose models are all evaluated."""
    wanted = [f"{row.key}-{mode}" for row in CONTESTANTS for mode in dict.fromkeys((row.mode, "instant"))]
    found = [(int(m.group(1)), p) for p in root.glob("seed-*") if (m := re.fullmatch(r"seed-(\d+)", p.name))]
    return sorted(n for n, p in found if all((p / "evaluate" / w / "manifest.json").exists() for w in wanted))


def _facts(folders: Sequence[Path]) -> dict[str, Any]:
    """What the tables do not say, over the seeds: rows, pairs, time."""

    def of(stage: str) -> list[Manifest]:
        return [_read(folder / stage / "manifest.json") for folder in folders]

    def between(values: Sequence[int]) -> str:
        low, high = min(values), max(values)
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"

    facts: dict[str, Any] = {"base": of("sft")[0]["config"]["model"]["base"]}
    for title, stage in (("Baseline", "sft-baseline"), ("Baseline_mix", "sft-baseline-mix"), ("R-SFT", "sft")):
        facts[f"examples of {title}"] = between([m["counts"]["out"] for m in of(stage)])
    for how in HS_DPO:
        facts[f"hard pairs, {how}"] = between([m["counts"]["out"] for m in of(f"mine-{how}")])
    stages = [path for folder in folders for path in folder.rglob("manifest.json")]
    facts["minutes a seed"] = round(sum(_read(path)["seconds"] for path in stages) / 60 / len(folders), 1)
    return facts


def _read(path: Path) -> Manifest:
    content: Manifest = json.loads(path.read_text(encoding="utf-8"))
    return content


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train and compare the five models of the paper's Table 3.")
    parser.add_argument("recipe", nargs="?", default=str(Path(__file__).with_name("ablation.yaml")), metavar="RECIPE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 1 to N; more may follow later")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default GUARDREASONER_DATA)")
    parser.add_argument("--dry-run", action="store_true", help="say what one seed would train, and stop")
    parser.add_argument("--fresh", action="store_true", help="start over")
    args = parser.parse_args(arguments)
    folder = data_folder(args.data)
    try:
        recipe = load_recipe(args.recipe)
        check(recipe, args.seeds)
        if args.dry_run:
            print(f"{args.seeds} seeds; what follows is one of them")
            stages = training_stages(recipe)
            print_outlook(seeded(recipe, 1), args.out / "seed-1", stages=stages, data_dir=folder)
            return 0
        for manifest in ablate(recipe, args.seeds, out=args.out, data_dir=folder, fresh=args.fresh):
            show_manifest(manifest)
    except GuardReasonerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print((args.out / PAGE).read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
