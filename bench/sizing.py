"""How many requests one core answers, by length of the text and by mode: the table of docs/operate.md.

    python bench/sizing.py                      the bundled guard; server and guard share one core, the load has another

Every text is new, so that the cache answers none. A closed loop of 4 callers, so the rate is what the core can do; the
median is of requests that wait for one another. Needs `taskset`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from importlib.resources import files

from load import Target, closed_loop, percentiles
from processes import free_port, running

WORDS = (10, 40, 200, 500, 2000)
MODES = ("instant", "auto", "full")
CALLERS = 4
POLICY = "version: 1\nroutes: {judge: {deadline_s: 60}}\n"


def sentences() -> list[str]:
    """Harmless requests of the bundled rows."""
    rows = map(json.loads, (files("guardreasoner") / "data" / "smoke.jsonl").read_text(encoding="utf-8").splitlines())
    return [row["prompt"] for row in rows if row["prompt_harm"] == "unharmful"]


def text(words: int, number: int, pool: list[str]) -> str:
    """Prose of so many words, another one for every number."""
    chosen, drawn = [f"({number})"], random.Random(number)
    while len(chosen) < words:
        chosen += drawn.choice(pool).split()
    return " ".join(chosen[:words])


async def rate(url: str, words: int, mode: str, seconds: float) -> str:
    pool = sentences()

    def body(number: int) -> bytes:
        return json.dumps({"prompt": text(words, number, pool), "mode": mode}).encode()

    await closed_loop(Target(url), body, callers=1, seconds=0.5)
    answers = await closed_loop(Target(url), lambda n: body(n + 1_000_000), callers=CALLERS, seconds=seconds)
    good = [a for a in answers if a.code == 200 and a.json()["status"] == "ok"]
    p50, p95, _ = percentiles([a.seconds * 1000 for a in good]) if good else (float("nan"),) * 3
    return (
        f"| {words:,} | {mode} | {len(good) / max(a.start + a.seconds for a in answers):.1f} | {p50:.0f} | {p95:.0f} |"
    )


def measure(args: argparse.Namespace) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as policy:
        policy.write(POLICY)
        policy.flush()
        port = free_port()
        serve = [sys.executable, "-m", "guardreasoner", "serve", "--port", str(port), "--policy", policy.name]
        command = ["taskset", "-c", "0", *serve, *(("--guard", args.guard) if args.guard else ())]
        with running(command, f"http://127.0.0.1:{port}/readyz"):
            print("| words | mode | requests/s on one core | p50 ms | p95 ms |\n|---|---|---|---|---|")
            for mode in args.modes.split(","):
                for words in WORDS:
                    print(asyncio.run(rate(f"http://127.0.0.1:{port}/v1/judge", words, mode, args.seconds)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--guard", help="default: the bundled one")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--seconds", type=float, default=10)
    measure(parser.parse_args())
