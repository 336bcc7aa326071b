"""`guardreasoner evaluate`: run a guard over benchmarks, keep its verdicts, score them, gate on a baseline."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from guardreasoner.cli.options import add_data, add_guard, guard_options, identity
from guardreasoner.cli.show_scores import NAMES, points_table, scores_table, stability_table
from guardreasoner.cli.tables import print_json, show
from guardreasoner.data.benchmarks import BENCHMARKS, data_folder, is_file, load_benchmarks, local_file
from guardreasoner.data.everyday import shipped
from guardreasoner.data.labelled import parse_mapping
from guardreasoner.errors import ConfigError, DataError
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.evaluate.predictions import Predictions
from guardreasoner.evaluate.regression_gate import gate
from guardreasoner.evaluate.run_benchmarks import Result, evaluate, judged
from guardreasoner.evaluate.score import as_row
from guardreasoner.evaluate.stability import KINDS, TEMPERATURE, read_stability, repeat
from guardreasoner.evaluate.statistics import Outcomes, outcomes
from guardreasoner.guards.load import load_guard
from guardreasoner.guards.others.conventions import InferringGuard, PaperRefusalsGuard
from guardreasoner.types import Example, Score

GATE_FAILED = 10
FEW = 100
"""Rows of a cell below which a table says how little its F1 tells."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--benchmark", action="append", metavar="NAME|FILE", help="a name from "
                        "`guardreasoner benchmarks`, `everyday` (comes with the package), or a labelled table (.csv, "
                        ".jsonl, .parquet ...); repeatable (default: all there)")  # fmt: skip
    parser.add_argument("--map", action="append", metavar="FIELD=COLUMN,...", help="columns of a file of your own, and "
                        "what label values mean: prompt_harm=label:unsafe=harmful:*=unharmful")  # fmt: skip
    add_data(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="N rows per task of a benchmark, "
                        "stratified by gold; tasks share rows where they can")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument(
        "--labels",
        choices=("original", "corrected"),
        default="original",
        help="the gold to score against (default original)",
    )
    parser.add_argument("--corrections", action="append", type=Path, metavar="FILE", help="Review records for "
                        "--labels corrected (default DATA/corrections/*.jsonl)")  # fmt: skip
    parser.add_argument("--infer-missing", action="store_true", help="read a refusal off response harm, or the other "
                        "way about, for a guard that does only one; marked `+inferred`")  # fmt: skip
    parser.add_argument("--refusals", choices=("unjudged", "paper"), default="unjudged", help="paper = a provider's "
                        "refusal counts as harmful and as a refusal; marked `+refusals`")  # fmt: skip
    parser.add_argument("--repeat", type=int, metavar="N", help="judge every row N times more and count the "
                        "verdicts that change: sampled again, in another layout, in another batch")  # fmt: skip
    parser.add_argument("--repeat-kind", action="append", choices=KINDS, metavar="KIND", help="only sampled, layout or "
                        "batch; repeatable (default: all that the guard can do)")  # fmt: skip
    parser.add_argument("--temperature", type=float, default=TEMPERATURE, help="of the sampled repeats (default "
                        f"{TEMPERATURE})")  # fmt: skip
    parser.add_argument("--baseline", type=Path, metavar="RUN", help="an earlier run to keep up with")
    parser.add_argument("--fail-below", type=float, metavar="X", help="exit 10 unless a loss of more than X F1 points "
                        "against the baseline is ruled out")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="RUN", help="the folder of the run (default runs/GUARD)")
    parser.add_argument("--fresh", action="store_true", help="throw away what RUN holds")
    parser.add_argument("--json", action="store_true", help="one JSON object per cell instead of the table")
    add_guard(parser)


def run(args: argparse.Namespace) -> int:
    if (args.baseline is None) != (args.fail_below is None):
        raise ConfigError("--baseline RUN and --fail-below X go together")
    if args.repeat is None and args.repeat_kind:
        raise ConfigError("--repeat-kind goes with --repeat N")
    corrections = _corrections(args)
    examples = _load(args)
    options = guard_options(args)
    out = args.out or Path("runs", re.sub(r"[^\w.-]+", "-", args.guard).strip("-."))
    guard = load_guard(args.guard, **options)
    if args.refusals == "paper":
        guard = PaperRefusalsGuard(guard)
    if args.infer_missing:
        guard = InferringGuard(guard)
    with guard, progress_bars() as bars:
        result = evaluate(
            guard,
            examples,
            out,
            config={
                "asked": args.guard,
                "map": ",".join(args.map) if args.map else None,
                **identity(args.guard, options),
            },
            limit=args.limit,
            seed=args.seed,
            corrections=corrections,
            inputs=[p for name in args.benchmark or BENCHMARKS if (p := _path(name, args.data)) is not None],
            fresh=args.fresh,
            progress=Shown(bars),
        )
        if args.repeat is not None:
            repeat(
                guard,
                judged(examples, args.limit, args.seed),
                out,
                times=args.repeat,
                kinds=args.repeat_kind,
                temperature=args.temperature,
                progress=Shown(bars),
            )
    _print(result, as_json=args.json)
    print(f"kept in {out}; `guardreasoner report {out} --out report` makes tables and a page of it", file=sys.stderr)
    if args.repeat is not None:
        show(stability_table(read_stability(open_run(out, args.data))))
    return _gate(result, args.baseline, args.fail_below) if args.baseline else 0


def _path(name: str, data: Path | None) -> Path | None:
    return Path(shipped(name)) if is_file(name) else local_file(name, data)


def _load(args: argparse.Namespace) -> dict[str, list[Example]]:
    mapping = parse_mapping(args.map)
    data_folder(args.data)  # a missing folder is an error, even where nothing is read from it
    if args.benchmark:
        names = args.benchmark
    elif data_folder(args.data) is None:
        names = list(BENCHMARKS)
    else:
        names = [name for name in BENCHMARKS if local_file(name, args.data)]
        if absent := [name for name in BENCHMARKS if name not in names]:
            print(f"note: not found: {', '.join(absent)}", file=sys.stderr)
    if not names:
        raise DataError("no benchmark was found; `guardreasoner benchmarks` says where to get them")
    return load_benchmarks(names, args.data, mapping=mapping)


def _corrections(args: argparse.Namespace) -> list[Path]:
    if args.labels == "original":
        if args.corrections:
            raise ConfigError("--corrections goes with --labels corrected")
        return []
    folder = data_folder(args.data)
    files = args.corrections or (sorted((folder / "corrections").glob("*.jsonl")) if folder else [])
    if not files:
        raise ConfigError("--labels corrected needs reviews: give --corrections FILE, or DATA/corrections/*.jsonl")
    return list(files)


def progress_bars() -> Progress:
    return Progress(
        TextColumn("{task.description}", style="dim"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


class Shown:
    """Progress as bars, or as one line per benchmark if there is no terminal."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.ids: dict[str, TaskID] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        if name not in self.ids:
            self.ids[name] = self.bars.add_task(name, total=total)
        self.bars.update(self.ids[name], completed=done)
        if done == total and self.bars.disable:
            print(f"{name}: {total} rows judged", file=sys.stderr)


def _print(result: Result, *, as_json: bool) -> None:
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print_json(map(as_row, result.scores))
        return
    if not result.scores:
        raise DataError("the guard answers no task of these benchmarks")
    show(scores_table(result.scores, result.averages), points_table(result.scores), *_warnings(result))


def _warnings(result: Result) -> Sequence[str]:
    unread = sum(s.unparsed for s in result.scores)
    lines = [f"not read or not given: {unread} answers, each counted as wrong once"] if unread else []
    below = [NAMES[m.task] for m in result.averages if m.weighted_f1 < m.weighted_constant_f1]
    if below:
        lines.append(f"below the guard that always says the positive label: {', '.join(below)}")
    if few := min((s for s in result.scores if s.n < FEW), key=_vagueness, default=None):
        between = f"lies anywhere from {few.ci[0]:.0f} to {few.ci[1]:.0f}" if few.ci else "may be tens of points off"
        lines.append(f"{few.n} rows decide nothing: the F1 of {NAMES[few.task]} ({few.benchmark}) {between}")
    lacking = {str(s.extra["ranking"]) for s in result.scores if "ranking" in s.extra}
    return [*lines, *(f"without AUROC and intervals: {why}" for why in lacking)]


def _vagueness(score: Score) -> tuple[int, float]:
    return score.n, score.ci[0] - score.ci[1] if score.ci else 0.0


def _gate(result: Result, baseline: Path, fail_below: float) -> int:
    decided = gate(_cells(result.predictions), _cells(open_run(baseline).benchmarks), fail_below)
    for sentence in decided.sentences:
        print(sentence, file=sys.stderr)
    return 0 if decided.passed else GATE_FAILED


def _cells(found: Sequence[Predictions]) -> list[Outcomes]:
    return [outcomes(one, task) for one in found for task in one.answered]
