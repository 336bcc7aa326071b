"""`guardreasoner synthesize`: let a teacher write reasoning for labelled examples."""

from __future__ import annotations

import argparse
from dataclasses import replace

from guardreasoner.cli.import_traces import show_traces
from guardreasoner.cli.stages import add_stage
from guardreasoner.data.benchmarks import data_folder
from guardreasoner.data.mix import USES
from guardreasoner.reproduce import synthesize_stage
from guardreasoner.teach.imported import HUB_ID
from guardreasoner.teach.synthesize import estimate
from guardreasoner.train.recipe import load_recipe


def add(parser: argparse.ArgumentParser) -> None:
    add_stage(parser, dry_run=True)


def run(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.recipe)
    if args.dry_run:
        if recipe.traces:
            print(f"reads published traces from {recipe.traces}; no teacher is asked")
            return 0
        data = replace(recipe.data, seeds=recipe.seeds, use=USES) if recipe.seeds else recipe.data
        print(estimate(data, recipe.synthesize, data_dir=data_folder(args.data)))
        return 0
    manifest = synthesize_stage(recipe, args.out, data_dir=data_folder(args.data), fresh=args.fresh)
    show_traces(manifest, args.out, published=recipe.traces == HUB_ID)
    return 0
