"""`guardreasoner mine`: turn disagreeing answers into weighted preferences."""

from __future__ import annotations

import argparse

from guardreasoner.cli.stages import add_stage, show_manifest
from guardreasoner.train.mine import run_mine
from guardreasoner.train.recipe import load_recipe


def add(parser: argparse.ArgumentParser) -> None:
    add_stage(parser)


def run(args: argparse.Namespace) -> int:
    show_manifest(run_mine(load_recipe(args.recipe).mine, out=args.out, fresh=args.fresh))
    return 0
