"""Write down that benchmark rows were looked at: one line of docs/benchmark-looks.jsonl for a finished evaluation.

    python bench/log_benchmark_look.py RUN "what was looked at, and why" [--model RUN/export/model/model.onnx]

Every look can mislead the next decision, so the model card prints how many there were.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from guardreasoner.records import dumps, now, read_jsonl, sha256

ROOT = Path(__file__).parent.parent
LOOKS = ROOT / "docs" / "benchmark-looks.jsonl"


def main() -> None:
    """Append the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("what")
    parser.add_argument("--model", type=Path, help="the weights, for their hash")
    args = parser.parse_args()
    scores = [row for _, row in read_jsonl(args.run / "scores.jsonl")]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    limit = json.loads((args.run / "run.json").read_text())["config"].get("limit")
    cells = {f"{s['benchmark']}/{s['task']}": {"f1": round(s["f1"], 2), "n": s["n"]} for s in scores}
    look = {
        "at": now(),
        "what": args.what,
        "commit": commit.stdout.strip(),
        "weights": sha256(args.model)[:12] if args.model else None,
        "subsample": f"{limit} rows a file, stratified" if limit else "all",
        "cells": cells,
    }
    with open(LOOKS, "a", encoding="utf-8") as stream:
        stream.write(dumps(look) + "\n")


if __name__ == "__main__":
    main()
