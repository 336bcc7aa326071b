"""`guardreasoner reproduce`: run all stages of a recipe in order, then evaluate; an ablation seed by seed."""

from __future__ import annotations

import argparse
from dataclasses import replace

from guardreasoner.cli.stages import add_stage, data_dir, show_manifest
from guardreasoner.errors import ConfigError
from guardreasoner.reproduce import reproduce
from guardreasoner.train.recipe import AblationConfig, Recipe, load_recipe


def add(parser: argparse.ArgumentParser) -> None:
    add_stage(parser, processes=True, dry_run=True)
    parser.add_argument("--seeds", type=int, metavar="N", help="of an ablation: seeds 1 to N (default: the recipe's)")


def run(args: argparse.Namespace) -> int:
    recipe = _with_seeds(load_recipe(args.recipe), args.seeds)
    if args.dry_run:
        _print_outlook(recipe, args)
        return 0
    for manifest in reproduce(
        recipe, args.recipe, out=args.out, data_dir=data_dir(args), processes=args.processes, fresh=args.fresh
    ):
        show_manifest(manifest)
    if recipe.ablation:
        from guardreasoner.ablation import PAGE

        print((args.out / PAGE).read_text(encoding="utf-8"))
    return 0


def _with_seeds(recipe: Recipe, seeds: int | None) -> Recipe:
    if seeds is None:
        return recipe
    if recipe.ablation is None:
        raise ConfigError(f"--seeds is for ablations, and recipe {recipe.name} is none")
    return replace(recipe, ablation=AblationConfig(seeds))


def _print_outlook(recipe: Recipe, args: argparse.Namespace) -> None:
    from guardreasoner.train.plan import print_outlook

    if recipe.ablation is None:
        print_outlook(recipe, args.out, stages=recipe.stages, data_dir=data_dir(args))
        return
    from guardreasoner.ablation import seeded, training_stages

    first = args.out / "seed-1"
    print(f"{recipe.ablation.seeds} seeds; what follows is one of them")
    print_outlook(seeded(recipe, 1), first, stages=training_stages(recipe), data_dir=data_dir(args))
