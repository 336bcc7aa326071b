"""`guardreasoner reproduce`: run all stages of a recipe in order, then evaluate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardreasoner.cli.stages import add_stage, show_table, title_of
from guardreasoner.data.benchmarks import data_folder
from guardreasoner.errors import ConfigError
from guardreasoner.reproduce import models_to_train, reproduce
from guardreasoner.train.recipe import BASELINE_MIX, Recipe, load_recipe, values


def add(parser: argparse.ArgumentParser) -> None:
    add_stage(parser, processes=True, dry_run=True)
    parser.add_argument("--variant", metavar="NAME", help="train and evaluate only this R-SFT variant on the traces of "
                        f"DIR, beside its own model; {BASELINE_MIX} = on labels alone")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.recipe)
    if args.dry_run and "encoder" in recipe.stages:
        return _encoder_rows(recipe, data_folder(args.data))
    if args.dry_run:
        from guardreasoner.train.plan import print_outlook

        models = [recipe.folder(name) for name in ([args.variant] if args.variant else models_to_train(recipe))]
        wanted = ("sft",) if args.variant else recipe.stages
        stages = [one for stage in wanted for one in (models if stage == "sft" else [stage])]
        print_outlook(recipe, args.out, stages=stages, data_dir=data_folder(args.data), processes=args.processes)
        return 0
    for line in values(recipe):
        print(line)
    ended: list[Mapping[str, Any]] = []
    for manifest in reproduce(
        recipe,
        args.recipe,
        out=args.out,
        data_dir=data_folder(args.data),
        variant=args.variant,
        processes=args.processes,
        fresh=args.fresh,
    ):
        ended.append(manifest)
        print(f"{title_of(manifest)} done, {manifest['counts']['out']} out", file=sys.stderr)
    show_table(ended)
    return 0


def _encoder_rows(recipe: Recipe, data: Path | None) -> int:
    """What an encoder would be trained on, by source; the rows are made as the stage makes them."""
    from guardreasoner.train.encoder_mix import load_rows

    if data is None:
        raise ConfigError("the recipe reads the data folder; give --data DIR or set GUARDREASONER_DATA")
    rows, about = load_rows(data, recipe.encoder.data)
    for source, count in sorted(about["sources"].items(), key=lambda item: -item[1]):
        print(f"{count:>7,}  {source}")
    print(f"{len(rows):>7,}  rows; nano v8's 89,881 took 47 minutes of one core with AVX512-BF16")
    return 0
