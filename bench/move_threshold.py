"""What a guard scores where one of its thresholds is moved, from the scores of a finished run.

    python bench/move_threshold.py RUN --task response_harm

Per threshold: F1, FPR and misses of `everyday`, then F1 and FPR of the paper's benchmarks, weighted by rows.
A server's policy (`thresholds: {response_harm: 0.3}`) moves it in the same way: it reads the scores of the verdicts.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from guardreasoner.data.benchmarks import BENCHMARKS
from guardreasoner.data.everyday import EVERYDAY
from guardreasoner.evaluate.contestants import contestants
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.evaluate.statistics import counts, rates
from guardreasoner.types import Task

TRIED = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)


def at(cell, threshold):
    """F1, FPR and misses in percent."""
    f1, _, recall, fpr = rates(counts(replace(cell, predicted=cell.scores >= threshold)).sum(-1))
    return f1, fpr, 100 - recall


def mean(pairs):
    """Of values with weights, to be read."""
    values, weights = zip(*pairs, strict=True) if (pairs := list(pairs)) else ((), ())
    return f"{np.average(values, weights=weights):5.1f}" if values else "–"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--task", type=Task, choices=list(Task), default=Task.response_harm)
    args = parser.parse_args()
    found = contestants([open_run(args.run)])[0].cells
    cells = {name: cell for (task, name), cell in found.items() if task is args.task and cell.scores is not None}
    rest = [cell for name, cell in cells.items() if name in BENCHMARKS]
    print(f"{args.task.value}: everyday F1, FPR, missed; {len(rest)} benchmarks F1, FPR")
    for threshold in TRIED:
        shown = "{:5.1f} {:5.1f} {:5.1f}".format(*at(cells[EVERYDAY], threshold)) if EVERYDAY in cells else "–"
        scored = [(*at(cell, threshold), cell) for cell in rest]
        f1, fpr = mean((x[0], x[3].n) for x in scored), mean((x[1], x[3].n) for x in scored if not x[3].all_positive)
        print(f"  {threshold:.2f}   {shown}   {f1} {fpr}")


if __name__ == "__main__":
    main()
