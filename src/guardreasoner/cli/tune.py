"""`guardreasoner tune LABELLED.jsonl`: fit an encoder's heads and thresholds to rows of one's own."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from guardreasoner.cli.tables import print_json, show, table_of
from guardreasoner.data.labelled import parse_mapping
from guardreasoner.errors import ConfigError
from guardreasoner.evaluate.calibrate import Target
from guardreasoner.guards.load import find_row
from guardreasoner.run_folder import refuse_overwriting


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("labelled", type=Path, metavar="LABELLED", help="a table with prompt, response and labels: "
                        ".jsonl, .csv, .json or .parquet")  # fmt: skip
    parser.add_argument("--map", action="append", metavar="FIELD=COLUMN,...", help="columns of a file of your own")
    parser.add_argument(
        "--guard", default="nano", metavar="NAME|FOLDER", help="the encoder to start from (default nano)"
    )
    parser.add_argument("--target", default="f1", metavar="RULE", help="how thresholds are chosen, as in `calibrate`: "
                        "f1 (default), fpr=0.05, ...")  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="the new guard; use it with --guard FOLDER"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the rows that are kept out")
    parser.add_argument("--json", action="store_true", help="one JSON object per task and set of rows")


def run(args: argparse.Namespace) -> int:
    from guardreasoner.train.tune import tune

    row = find_row(args.guard)
    if row.format != "encoder" or not (Path(row.model) / "model.onnx").exists():
        raise ConfigError(f"{args.guard} has no heads to tune; tune starts from nano, or from a folder that tune wrote")
    refuse_overwriting(args.out, [row.model, args.labelled])
    measures = tune(
        Path(row.model),
        args.labelled,
        args.out,
        target=Target.parse(args.target),
        mapping=parse_mapping(args.map),
        seed=args.seed,
    )
    if args.json:
        print_json(map(asdict, measures))
        return 0
    table = table_of("task", "rows", "n", "F1", "recall", "FPR", "AUROC", words=2)
    for m in measures:
        change = [f"{100 * m.before[k]:.1f} > {100 * m.after[k]:.1f}" for k in ("f1", "recall", "fpr")]
        table.add_row(m.task, m.rows, str(m.n), *change, f"{m.before['auroc']:.3f} > {m.after['auroc']:.3f}")
    show(
        table,
        "before > after; own rows held out from the fit say what is gained, everyday says what it costs",
        f"use it: guardreasoner check --guard {args.out} 'your text'",
        wrap=False,
    )
    return 0
