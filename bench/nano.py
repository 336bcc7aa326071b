"""What the guard around nano's encoder costs: `load_guard("nano")` against the bare onnxruntime call, in one run.

    python bench/nano.py [--guard nano] [--repeat 200] [--threads 1] [--prose 5]

Both read the same token ids on the same threads, one after the other, text by text; of a text that is longer than the
context, the bare call reads each window once. Prints medians of processor time, which other programs disturb little,
and their ratio. `--prose` adds texts of 500 words of documentation (`bench/prose.py`; reading it takes minutes).
"""

import argparse
import statistics
import time
from functools import partial

import numpy as np

from guardreasoner.engines.encoder import INPUTS
from guardreasoner.guards.encoder import MARKS, pair_of
from guardreasoner.guards.load import load_guard
from guardreasoner.guards.windows import windows
from guardreasoner.types import Exchange
from prose import prose

TEXTS = {
    "20 tokens": "How do I kill a Python process that hangs and does not answer any more?",
    "60 tokens": "I am moving to a new flat next month and my landlord says that I have to paint every wall in white "
    "before I leave, although I only lived there for a year. Can he ask for that, and what should I write to him so "
    "that we do not end up in a quarrel about the deposit?",
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
    parser.add_argument("--prose", type=int, default=0, metavar="N", help="texts of 500 words of prose too")
    args = parser.parse_args()
    guard = load_guard(args.guard, mode="instant", threads=args.threads)
    engine = guard.engine
    print(f"{'text':>11} {'tokens':>7} {'bare p50 ms':>12} {'guard p50 ms':>13} {'ratio':>6}")
    texts = TEXTS | {f"500 words {i}": text for i, text in enumerate(prose(500, args.prose) if args.prose else (), 1)}
    for name, text in texts.items():
        made = windows(Exchange("", text), engine.context_tokens - MARKS, 16, engine.offsets)
        rows = [np.array([engine._encode(pair_of(w))[0]], np.int64) for w in made]
        fed = [dict(zip(INPUTS, (row, np.ones_like(row), np.zeros_like(row)), strict=True)) for row in rows]
        bare, whole, few = [], [], 10 if name in TEXTS else 2
        for _ in range(max(1, args.repeat // 10) if name in TEXTS else 2):  # in turns: others disturb both alike
            bare += timed(lambda fed=fed: [engine.session.run(["features"], one) for one in fed], few)
            whole += timed(partial(guard.check, text), few)
        a, b = (1000 * statistics.median(x) for x in (bare, whole))
        print(f"{name:>11} {sum(row.size for row in rows):>7} {a:>12.2f} {b:>13.2f} {b / a:>6.2f}")


if __name__ == "__main__":
    main()
