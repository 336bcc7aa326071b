"""`guardreasoner sample`: write k answers per example with one or several models."""

from __future__ import annotations

import argparse

from guardreasoner.cli.stages import add_stage, show_manifest
from guardreasoner.reproduce import sample_stage
from guardreasoner.train.recipe import load_recipe


def add(parser: argparse.ArgumentParser) -> None:
    add_stage(parser)


def run(args: argparse.Namespace) -> int:
    show_manifest(sample_stage(load_recipe(args.recipe), args.out, fresh=args.fresh))
    return 0
