"""`guardreasoner calibrate`: thresholds and probabilities for any guard with scores, from labelled rows."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from guardreasoner.cli.options import add_guard, guard_options
from guardreasoner.cli.tables import print_json, show, table_of
from guardreasoner.data.labelled import parse_mapping, read_examples
from guardreasoner.errors import ConfigError
from guardreasoner.evaluate.calibrate import Fit, Target, as_row, fit_verdicts
from guardreasoner.guards.calibration import Calibration, read_calibration
from guardreasoner.guards.load import find_row, load_guard
from guardreasoner.records import sha256, write_atomic
from guardreasoner.run_folder import refuse_overwriting


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("labelled", type=Path, metavar="LABELLED.jsonl", help="rows with prompt, response and labels")
    parser.add_argument("--map", action="append", metavar="FIELD=COLUMN,...", help="columns of a file of your own")
    parser.add_argument("--target", default="f1", help="f1, fpr=0.01, precision=0.9, recall=0.9 or p=0.5 (default f1)")
    parser.add_argument("--budget", type=float, default=0.0, help="share of rows `auto` may send on to reasoning")
    parser.add_argument("--out", type=Path, required=True, help="the calibration file; other modes in it are kept")
    parser.add_argument("--json", action="store_true", help="one JSON object per task")
    add_guard(parser)


def run(args: argparse.Namespace) -> int:
    target = Target.parse(args.target)
    if args.calibration:
        raise ConfigError("--calibration makes no sense here: the fit starts from uncalibrated scores")
    mode = "instant" if args.mode == "auto" else args.mode
    refuse_overwriting(args.out, [args.labelled])
    examples = read_examples(args.labelled, parse_mapping(args.map))
    with load_guard(args.guard, **{**guard_options(args), "mode": mode, "calibration": Calibration()}) as guard:
        verdicts = guard.judge([e.exchange for e in examples])
    fits = fit_verdicts(verdicts, examples, mode=mode, target=target, budget=args.budget)
    before = read_calibration(args.out).curves if args.out.exists() else {}
    own = _own(args.model or args.guard).curves
    pieces = {key: curve.piece for curve_set in (own, before) for key, curve in curve_set.items()}
    found = {(f.task, f.mode): replace(f.curve, piece=pieces.get((f.task, f.mode))) for f in fits}
    curves = {**before, **found}
    fitted_on = (
        f"{args.labelled.name} ({len(examples)} rows, sha256 {sha256(args.labelled)[:12]}), target {args.target}"
    )
    write_atomic(args.out, json.dumps(Calibration(curves, fitted_on).as_dict(), indent=2) + "\n")
    if args.json:
        print_json(map(as_row, fits))
    else:
        show(_table(fits))
    return 0


def _own(name: str) -> Calibration:
    """The calibration that the guard comes with: bars of pieces are fitted on other rows, and stay."""
    path = Path(find_row(name).model) / "calibration.json" if ":" not in name else Path()
    return read_calibration(path) if path.is_file() else Calibration()


def _table(fits: list[Fit]) -> Table:
    table = table_of(
        "task", "mode", "rows", "positive", "AUROC", "ECE before", "ECE", "threshold [95%]", "F1", "FPR", "recall",
        words=2, title="Fitted on the rows given: expect a little less elsewhere",
    )  # fmt: skip
    for f in fits:
        a = f.attained
        table.add_row(
            f.task.value, f.mode, str(f.n), str(f.positives), f"{f.auroc:.3f}", f"{f.ece_before:.3f}", f"{f.ece:.3f}",
            f"{f.curve.threshold:.3f} [{f.interval[0]:.3f}, {f.interval[1]:.3f}]",
            f"{100 * a['f1']:.1f}", f"{100 * a['fpr']:.1f}%", f"{100 * a['recall']:.1f}%",
        )  # fmt: skip
    return table
