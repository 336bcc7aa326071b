"""`guardreasoner export`: turn a run's last checkpoint, or any checkpoint folder, into an ONNX model folder."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

from guardreasoner.cli.stages import show_manifest
from guardreasoner.errors import ConfigError
from guardreasoner.export.onnx import Precision


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe",
        metavar="RECIPE|CHECKPOINT",
        help="a recipe whose run is in --out, or a checkpoint folder",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="writes DIR/export/model")
    parser.add_argument("--precision", choices=get_args(Precision), help="of the weights, instead of the recipe's own")
    parser.add_argument("--no-check", action="store_true", help="do not compare the logits with torch")
    parser.add_argument("--fresh", action="store_true", help="start this stage over")


def run(args: argparse.Namespace) -> int:
    from guardreasoner.export.onnx import ExportConfig
    from guardreasoner.export.onnx import run as export

    checkpoint = Path(args.recipe)
    if checkpoint.is_dir():
        config = ExportConfig()
    elif checkpoint.name != args.recipe and checkpoint.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{checkpoint} is neither a checkpoint folder nor a recipe")
    else:
        from guardreasoner.reproduce import export_stage, final_checkpoint
        from guardreasoner.train.recipe import load_recipe

        recipe = load_recipe(args.recipe)
        if "encoder" in recipe.stages:
            if args.precision or args.no_check:
                raise ConfigError("an encoder is exported in int8 and checked; leave out --precision and --no-check")
            show_manifest(export_stage(recipe, args.out, fresh=args.fresh))
            return 0
        checkpoint, config = final_checkpoint(recipe, args.out), recipe.export
    if args.precision:
        config = replace(config, precision=args.precision)
    if args.no_check:
        config = replace(config, check=False)
    made = export(checkpoint, args.out, config, fresh=args.fresh)

    show_manifest(json.loads((args.out / "export" / "manifest.json").read_text(encoding="utf-8")))
    print(made.folder)
    return 0
