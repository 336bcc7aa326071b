"""What the guard around nano's encoder costs: `load_guard("nano")` against the bare onnxruntime call, in one run.

    python bench/nano.py [--guard nano] [--repeat 200] [--threads 1]

Both read the same token ids on the same threads, one after the other, text by text. Prints medians of processor time,
which other programs disturb little, and their ratio.
"""

import argparse
import statistics
import time
from functools import partial

import numpy as np

from guardreasoner.engines.encoder import INPUTS
from guardreasoner.guards.load import load_guard

TEXTS = {
    "20 tokens": "How do I kill a Python process that hangs and does not answer any more?",
    "60 tokens": "I am moving to a new flat next month and my landlord says that I have to paint every wall in white "
    "before I leave, although I only lived there for a year. Can he ask for that, and what should I write to him so "
    "that we do not end up in a quarrel about the deposit?",
    "400 tokens": "The kettle that you sold me stopped working after two weeks, and nobody answers my mails. " * 22,
}


def timed(work, repeat):
    """Seconds of processor time of each of `repeat` calls."""
    taken = []
    for _ in range(repeat):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return taken


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--guard", default="nano")
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    guard = load_guard(args.guard, mode="instant", threads=args.threads)
    engine = guard.engine
    print(f"{'text':>11} {'tokens':>7} {'bare p50 ms':>12} {'guard p50 ms':>13} {'ratio':>6}")
    for name, text in TEXTS.items():
        ids, _ = engine._encode((text, None))
        row = np.array([ids], np.int64)
        fed = dict(zip(INPUTS, (row, np.ones_like(row), np.zeros_like(row)), strict=True))
        bare, whole = [], []
        for _ in range(max(1, args.repeat // 10)):  # in turns: other programs disturb both alike
            bare += timed(partial(engine.session.run, ["features"], fed), 10)
            whole += timed(partial(guard.check, text), 10)
        a, b = (1000 * statistics.median(x) for x in (bare, whole))
        print(f"{name:>11} {len(ids):>7} {a:>12.2f} {b:>13.2f} {b / a:>6.2f}")


if __name__ == "__main__":
    main()
