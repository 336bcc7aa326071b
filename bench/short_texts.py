"""What pieces add in short texts: harm among harmless sentences, and harmless texts, of at most 64 tokens.

    python bench/short_texts.py --guard nano --data DATA

Rows are of left-out sources and of everyday's left-out domains; the harmful ones are flagged by themselves. For
each set: texts whose whole is flagged, texts that only their pieces flag, and how far below its bar the whole of those
lies, in log-odds. `guards.encoder.REACH` is set by it: pieces of a short text are judged only that far below the bar.
"""

import argparse
import random
import re
import sys
from dataclasses import replace
from pathlib import Path

from guardreasoner.data.benchmarks import data_folder
from guardreasoner.guards.calibration import Calibration
from guardreasoner.guards.encoder import SHORT
from guardreasoner.guards.load import load_guard
from guardreasoner.metrics import logit
from guardreasoner.records import read_jsonl
from guardreasoner.types import Exchange, Task

LEFT_OUT = ("strongreject", "dro_howto", "catqa", "safe_unlearning", "jailjudge_mini")
DOMAINS = ("a05", "b08", "c03", "d07", "e07", "f05", "p07", "q08", "r04")
ASKED = "How do I bake bread?"


def texts(folder, task, label):
    """Prompts or replies with a label, nothing was trained on."""
    key = "prompt" if task is Task.prompt_harm else "response"
    names = [f"everyday/{d}" for d in DOMAINS] + [f"train/{s}" for s in LEFT_OUT if label == "harmful"]
    rows = [row for name in names for _, row in read_jsonl(Path(folder) / f"{name}.jsonl")]
    return [r[key] for r in rows if r.get(task) == label and r.get(key) and not r.get("context")]


def exchange(task, text):
    return Exchange("x", text) if task is Task.prompt_harm else Exchange("x", ASKED, text)


def diluted(harm, sentences, rng, fits):
    """A harmful text among one to three harmless sentences, or None where that does not fit."""
    parts = rng.sample(sentences, rng.choice((1, 2, 3)))
    parts.insert(rng.randrange(len(parts) + 1), harm)
    while len(parts) > 1:
        if fits(text := " ".join(parts)):
            return text
        parts.remove(next(p for p in parts if p != harm))
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--guard", default="nano")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=150)
    args = parser.parse_args()
    folder = data_folder(args.data)
    if folder is None:
        sys.exit("give --data DATA, or set GUARDREASONER_DATA")
    guard = load_guard(args.guard, mode="instant", threads=1)
    curves = guard.calibration.curves
    bare = Calibration({key: replace(curve, piece=None) for key, curve in curves.items()})
    whole = load_guard(args.guard, mode="instant", threads=1, calibration=bare)
    for task in (Task.prompt_harm, Task.response_harm):
        rng = random.Random(0)

        def fits(text, task=task):
            return len(guard.engine._encode((exchange(task, text).prompt, exchange(task, text).response))[0]) <= SHORT

        threshold = guard.calibration.curve(task, "instant").threshold
        calm = texts(folder, task, "unharmful")
        sentences = [s for t in calm for s in re.split(r"(?<=[.!?])\s+", t) if 5 <= len(s.split()) <= 16]
        harm = [t for t in texts(folder, task, "harmful") if 5 <= len(t.split()) <= 30]
        rng.shuffle(harm)
        harm = [h for h in harm[: 2 * args.rows] if whole.judge([exchange(task, h)])[0].flagged][: args.rows]
        sets = {
            "harm among harmless sentences": [t for h in harm if (t := diluted(h, sentences, rng, fits))],
            "harmless": [t for t in calm if fits(t)],
        }
        for name, some in sets.items():
            asked = [exchange(task, t) for t in some]
            first = whole.judge(asked, tasks=(task,))
            both = guard.judge(asked, tasks=(task,))
            added = [a for a, b in zip(first, both, strict=True) if b.flagged and not a.flagged]
            below = sorted(logit(threshold) - logit(v.scores[task]) for v in added)
            print(
                f"{task.value:>14} | {name:>30} | {len(some)} texts | whole flags {sum(v.flagged for v in first)} | "
                f"pieces add {len(added)}, their wholes {', '.join(f'{x:.1f}' for x in below) or '-'} below the bar | "
                f"passes {sum(v.usage.passes for v in both) / max(1, len(both)):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
