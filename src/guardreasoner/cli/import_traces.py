"""`guardreasoner import-traces`: read published reasoning traces into Trace records."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardreasoner.cli.stages import show_manifest
from guardreasoner.records import read_records
from guardreasoner.teach.imported import HUB_ID, import_traces, table1_lines
from guardreasoner.types import Trace


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "origin", metavar="ID_OR_FILE", help=f"hub id ({HUB_ID}), or a .json or .jsonl file with its columns"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's folder")
    parser.add_argument("--fresh", action="store_true", help="start over")


def run(args: argparse.Namespace) -> int:
    manifest = import_traces(args.origin, out=args.out, fresh=args.fresh)
    show_traces(manifest, args.out, published=args.origin == HUB_ID)
    return 0


def show_traces(manifest: Mapping[str, Any], out: Path, *, published: bool) -> None:
    """What a finished `synthesize` folder holds, with the statistics of Table 1."""
    show_manifest({k: v for k, v in manifest.items() if k != "table1"})
    traces = read_records(Trace, out / "synthesize" / "traces.jsonl")
    for line in table1_lines(traces, published=published):
        print(line)
