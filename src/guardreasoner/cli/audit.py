"""`guardreasoner audit RUN`: measure whether the reasoning of a run supports its verdicts."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from guardreasoner.cli.options import add_data, add_guard, guard_options
from guardreasoner.cli.show_scores import NAMES
from guardreasoner.cli.tables import print_json, show, table_of
from guardreasoner.errors import DataError
from guardreasoner.evaluate.audit import Audit, Share, audit, dependence
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.guards.load import load_guard


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a run folder, or a folder of official "
                        "<Benchmark>/generated_predictions.jsonl")  # fmt: skip
    add_data(parser)
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="with --guard: rows per task (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    add_guard(parser, default=None, optional=True)


def run(args: argparse.Namespace) -> int:
    rows = open_run(args.run_folder, args.data).rows
    found = audit(rows)
    if not found.with_steps.hits:
        raise DataError(f"the verdicts of {args.run_folder} hold no reasoning; evaluate in mode full or short")
    if args.guard:
        with load_guard(args.guard, **guard_options(args)) as guard:
            changed = dependence(rows, guard, limit=args.limit, seed=args.seed, progress=_progress)
        found = replace(found, dependence=changed)
    if args.json:
        print_json([as_dict(found)])
    else:
        show(audit_table(found))
    return 0


def _progress(done: int, total: int) -> None:
    if done and done % 25 == 0:
        print(f"{done} of {total} rows judged again", file=sys.stderr)


def as_dict(found: Audit) -> dict[str, Any]:
    """The audit as plain values."""
    return {
        "guard": found.guard,
        "rows": found.rows,
        "with_steps": _plain(found.with_steps),
        "agreement": _plain(found.agreement),
        "agreement_by_task": {t.value: _plain(s) for t, s in found.agreeing.items()},
        "unstated_by_task": {t.value: _plain(s) for t, s in found.unstated.items()},
        "quotes": _plain(found.quotes),
        "quoting": _plain(found.quoting),
        "copies": _plain(found.copies),
        "dependence": [
            {"task": d.task.value, "failed": d.failed}
            | {name: _plain(getattr(d, name)) for name in ("own", "deleted", "replaced")}
            for d in found.dependence
        ],
        "disagreeing_ids": list(found.disagreeing_ids),
        "ungrounded_ids": list(found.ungrounded_ids),
    }


def _plain(share: Share) -> dict[str, Any]:
    return {"hits": share.hits, "n": share.n, "percent": share.percent, "interval": share.interval}


def audit_table(found: Audit) -> Table:
    """The audit as a table: share, interval, counts."""
    table = table_of("", "%", "95%", "of", title=f"{found.guard}: {found.rows:,} rows")
    table.add_row("verdicts with steps", *_cells(found.with_steps))
    table.add_row("[bold]conclusion equals answer[/]", *_cells(found.agreement))
    for task, share in found.agreeing.items():
        table.add_row(f"  {NAMES[task.value]}", *_cells(share))
        table.add_row("    none that can be read", *_cells(found.unstated[task]))
    table.add_row("[bold]quoted words are in the exchange[/]", *_cells(found.quotes))
    table.add_row("  traces that quote", *_cells(found.quoting))
    table.add_row("[bold]same as another without quotes[/]", *_cells(found.copies))
    for line in found.dependence:
        table.add_row(f"[bold]{NAMES[line.task.value]} answer changes[/]", "", "", "")
        table.add_row("  with its own steps (control)", *_cells(line.own))
        table.add_row("  without steps", *_cells(line.deleted))
        table.add_row("  with steps of opposite gold", *_cells(line.replaced))
        if line.failed:
            table.add_row("  not answered, left out", "", "", f"{line.failed:,}")
    return table


def _cells(share: Share) -> tuple[str, str, str]:
    if share.percent is None or share.interval is None:
        return "–", "", "0"
    low, high = share.interval
    return f"{share.percent:.1f}", f"{low:.1f}–{high:.1f}", f"{share.n:,}"
