"""Thresholds of replies and refusals, tried on left-out sources as the guard judges them: with pieces.

    python bench/thresholds.py SCORES.jsonl --data DATA [--guard FOLDER] [--limit 100]

Scores every passage of the rows that the recipe names for each task (`calibrate.sources` of `recipes/nano.yaml`), at
most LIMIT of a source, once, into SCORES.jsonl (the same command again goes on where it stopped; each guard needs a
file of its own), and then tries thresholds on the stored scores, with the recipe's bars of pieces and without pieces.
No benchmark row and no test domain of everyday is read.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from guardreasoner.evaluate.calibrate import at_threshold
from guardreasoner.guards.encoder import MARKS, REACH, SHORT, WHOLES, pair_of
from guardreasoner.guards.load import load_guard
from guardreasoner.guards.pieces import near, passages
from guardreasoner.metrics import logit
from guardreasoner.records import Appender
from guardreasoner.train.encoder_mix import validation_rows
from guardreasoner.train.recipe import load_recipe
from guardreasoner.types import TASKS, Task

TRIED = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
NONE = (99, 99, 99)
"""Bars that no piece reaches."""


def scored(guard, task, exchange):
    """Log-odds of the whole that decides, of sentences (alone, again) and of pairs; tokens of the wholes."""
    engine, curve = guard.engine, guard.calibration.curve(task, "instant")
    made = passages(
        exchange, (task,), capacity=engine.context_tokens - MARKS, limit=16, offsets=engine.offsets,
        cut=curve.piece is not None,
    ).made  # fmt: skip

    def one(what):
        scores = engine.score([pair_of(what)])
        p = curve.probability(float(scores.logits[0][engine.outputs.index(task.value)]))
        return round(logit(p), 4), int(scores.tokens[0])

    wholes = [one(p.exchange) for p in made if p.bar in WHOLES]
    pieces = [(x, p) for p in made if p.bar in ("alone", "pair") and (x := one(p.exchange)[0]) >= 0]
    return {
        "whole": (min if task is Task.refusal else max)(x for x, _ in wholes),
        "tokens": sum(tokens for _, tokens in wholes),
        "alone": [(x, one(near(p).exchange)[0]) for x, p in pieces if p.around],
        "pairs": [x for x, p in pieces if not p.around],
    }


def called(row, threshold, bars):
    """Whether a row is called positive (`guards.encoder`).

    Args:
        bars: what a sentence alone, one judged again and two in a row need above the threshold.
    """
    cut = logit(threshold)
    alone, again, pair = (cut + bar for bar in bars)
    if row["whole"] >= cut or (row["tokens"] <= SHORT and row["whole"] < cut - REACH):
        return row["whole"] >= cut
    return any(x >= alone and y >= again for x, y in row["alone"]) or any(x >= pair for x in row["pairs"])


def score(guard, task, examples, file):
    """Scores of the rows, those that are stored already not anew."""
    done = {row["id"]: row for row in file.existing if row["task"] == task}
    for example in examples:
        if example.exchange.id not in done:
            found = scored(guard, task, example.exchange)
            row = {"id": example.exchange.id, "source": example.exchange.source, "task": task.value, **found}
            row["gold"] = example.gold[task] == TASKS[task].positive
            file.append(row)
            done[row["id"]] = row
    return [done[e.exchange.id] for e in examples]


def show(name, rows, threshold, bars):
    """One line: everyday, the other sources together, and all."""
    truth, calls = (np.array(x) for x in zip(*((r["gold"], called(r, threshold, bars)) for r in rows), strict=True))
    source = np.array([r["source"] for r in rows])
    shown = []
    for here in (source == "everyday", source != "everyday", source != ""):
        at = at_threshold(calls[here].astype(float), truth[here], 0.5)
        shown.append(
            "F1 {:.1f} FPR {:4.1f} missed {:4.1f}".format(*(100 * at["f1"], 100 * at["fpr"], 100 - 100 * at["recall"]))
        )
    print(f"  {threshold:.2f} {name:24} everyday " + " | others ".join(shown[:2]) + " | all " + shown[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--guard", default="nano", help="nano, or the folder of an encoder that was trained like it")
    parser.add_argument("--limit", type=int, default=100, help="most rows of a source, or of a domain of everyday")
    args = parser.parse_args()
    guard, recipe = load_guard(args.guard, mode="instant"), load_recipe("nano")
    rows = validation_rows(args.data, replace(recipe.encoder.data, leave_out_cap=args.limit))
    with Appender(args.scores) as file:
        for task in (Task.refusal, Task.response_harm):
            wanted = recipe.calibrate.sources[task]
            examples = [e for e in rows if e.exchange.source in wanted and e.gold[task] and e.exchange.response]
            found = score(guard, task, examples, file)
            print(f"{task.value}: {len(found)} rows, {sum(r['gold'] for r in found)} {TASKS[task].positive}")
            for threshold in TRIED:
                show("whole alone", found, threshold, NONE)
                if task in recipe.calibrate.pieces:
                    show("with pieces", found, threshold, recipe.calibrate.pieces[task])


if __name__ == "__main__":
    main()
