"""What the commands of the training stages share: their options, and torchrun for several processes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from guardreasoner.cli.tables import show, table_of
from guardreasoner.errors import printable


def add_stage(parser: argparse.ArgumentParser, *, processes: bool = False, dry_run: bool = False) -> None:
    """`RECIPE --out DIR --fresh`, and what a stage has besides."""
    parser.add_argument("recipe", metavar="RECIPE", help="a bundled recipe (smoke, nano, 1b, ...) or a YAML file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's folder")
    parser.add_argument("--fresh", action="store_true", help="start this stage over")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data folder (default GUARDREASONER_DATA)")
    if processes:
        parser.add_argument("--processes", type=int, default=1, metavar="N", help="train in N processes (torchrun)")
    if dry_run:
        parser.add_argument("--dry-run", action="store_true", help="check everything, say what it would take, and stop")


def spread(args: argparse.Namespace, finished: Path) -> int | None:
    """Start the same command under torchrun where several processes are asked for; None = continue in this one.

    Args:
        finished: the stage's manifest; if it exists, the stage is done.
    """
    from guardreasoner.train.launch import end_with_parent, inside, launch

    if inside():
        end_with_parent()
    if args.processes == 1 or inside() or args.dry_run or (finished.exists() and not args.fresh):
        return None
    launch(sys.argv[1:], args.processes)
    return 0


def show_manifest(manifest: Mapping[str, Any] | None) -> None:
    """One line per fact of a finished stage; only the first process has a manifest."""
    if manifest is None:
        return
    counts = manifest["counts"]
    lines = [f"{manifest['stage']}: {counts['in']} in, {counts['out']} out, dropped: {_dropped(counts)}"]
    quiet = {"stage", "config", "inputs", "versions", "counts", "started", "finished"}
    lines += [f"  {key}: {printable(str(value), 200)}" for key, value in manifest.items() if key not in quiet]
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for line in lines:
        console.print(line)


def title_of(manifest: Mapping[str, Any]) -> str:
    """A stage's name, with the variant that it trained."""
    return str(manifest.get("folder") or manifest["stage"])


def show_table(manifests: Sequence[Mapping[str, Any]]) -> None:
    """A line for each stage of a run: rows in and out, what was dropped, time, and what it came to."""
    heads = ("stage", "in", "out", "dropped", "time", "result")
    table = table_of(*heads, words=1, last_words=1, folds=heads)
    for manifest in manifests:
        counts = manifest["counts"]
        cells = (title_of(manifest), counts["in"], counts["out"], _dropped(counts), f"{manifest['seconds']:.0f} s")
        table.add_row(*(escape(printable(str(cell), 80)) for cell in (*cells, _result(manifest))))
    show(table)


def _dropped(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in counts.get("dropped", {}).items()) or "none"


def _result(manifest: Mapping[str, Any]) -> str:
    if manifest.get("train_loss") is not None:
        return f"loss {manifest['train_loss']:.3f}, {manifest['steps']} steps"
    if "averages" in manifest:
        return ", ".join(f"{a['task']} F1 {a['weighted_f1']:.1f}" for a in manifest["averages"])
    if "bytes" in manifest:
        return f"{manifest['bytes'] / 1e6:.1f} MB"
    if "weights" in manifest:
        return f"weights {manifest['weights']['min']:.2f} to {manifest['weights']['max']:.2f}"
    return ""
