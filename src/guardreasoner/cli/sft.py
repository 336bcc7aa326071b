"""`guardreasoner sft`: train on reasoning traces."""

from __future__ import annotations

import argparse

from guardreasoner.cli.stages import add_stage, show_manifest, spread
from guardreasoner.data.benchmarks import data_folder
from guardreasoner.train.recipe import load_recipe
from guardreasoner.train.sft import run_sft


def add(parser: argparse.ArgumentParser) -> None:
    add_stage(parser, processes=True, dry_run=True)
    parser.add_argument("--variant", default="sft", metavar="NAME", help="train a variant of the recipe instead")


def run(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.recipe)
    config, stage = recipe.variant(args.variant), recipe.folder(args.variant)
    if args.dry_run:
        from guardreasoner.train.plan import print_outlook

        print_outlook(recipe, args.out, stages=(stage,), processes=args.processes, data_dir=data_folder(args.data))
        return 0
    code = spread(args, args.out / stage / "manifest.json")
    if code is not None:
        return code
    show_manifest(run_sft(config, recipe.model, out=args.out, stage=stage, fresh=args.fresh))
    return 0
