"""`guardreasoner dpo`: train on weighted preferences."""

from __future__ import annotations

import argparse

from guardreasoner.cli.stages import add_stage, show_manifest, spread
from guardreasoner.data.benchmarks import data_folder
from guardreasoner.train.dpo import run_dpo
from guardreasoner.train.recipe import load_recipe


def add(parser: argparse.ArgumentParser) -> None:
    add_stage(parser, processes=True, dry_run=True)


def run(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.recipe)
    if args.dry_run:
        from guardreasoner.train.plan import print_outlook

        print_outlook(recipe, args.out, stages=("dpo",), processes=args.processes, data_dir=data_folder(args.data))
        return 0
    code = spread(args, args.out / "dpo" / "manifest.json")
    if code is not None:
        return code
    show_manifest(run_dpo(recipe.dpo, recipe.model, out=args.out, fresh=args.fresh))
    return 0
