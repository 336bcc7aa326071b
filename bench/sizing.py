"""How many requests one core answers, by length of the text and by mode: the table of docs/operate.md.

    python bench/sizing.py                      the bundled guard

Every text is new, so that the cache answers none. Requests per second and core are requests by the processor time of
the server and its guard, so that other work on the machine changes them little. Linux only (`/proc`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from load import Target, closed_loop
from processes import free_port, running

WORDS = (10, 40, 200, 500, 2000, 4000)
MODES = ("instant",)
CALLERS = 2
POLICY = "version: 1\nroutes: {judge: {deadline_s: 60}}\n"


PROSE = re.compile(r"[A-Za-z' ,.;:?!-]+")


def sentences() -> list[str]:
    """Harmless requests of the bundled rows, those in plain words: code and numbers side by side would be read as a
    disguise, which ordinary text is not."""
    rows = map(json.loads, (files("guardreasoner") / "data" / "smoke.jsonl").read_text(encoding="utf-8").splitlines())
    return [r["prompt"] for r in rows if r["prompt_harm"] == "unharmful" and PROSE.fullmatch(r["prompt"])]


def text(words: int, number: int, pool: list[str]) -> str:
    """Prose of so many words, another one for every number."""
    chosen, drawn = [f"({number})"], random.Random(number)
    while len(chosen) < words:
        chosen += drawn.choice(pool).split()
    return " ".join(chosen[:words])


def spent(process: int) -> float:
    """Processor seconds of a process and its descendants."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(spent(int(c)) for c in children)


async def rate(url: str, server: int, *, words: int, mode: str, seconds: float) -> str:
    pool = sentences()

    def body(number: int) -> bytes:
        return json.dumps({"prompt": text(words, number, pool), "mode": mode}).encode()

    await closed_loop(Target(url), body, callers=1, seconds=0.5)
    before = spent(server)
    answers = await closed_loop(Target(url), lambda n: body(n + 1_000_000), callers=CALLERS, seconds=seconds)
    good = [a for a in answers if a.code == 200 and a.json()["status"] == "ok"]
    return f"| {words:,} | {mode} | {len(good) / (spent(server) - before):.1f} | {len(good)} of {len(answers)} |"


def measure(args: argparse.Namespace) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as policy:
        policy.write(POLICY)
        policy.flush()
        port = free_port()
        serve = [sys.executable, "-m", "guardreasoner", "serve", "--port", str(port), "--policy", policy.name]
        command = [*serve, "--option", "threads=1", *(("--guard", args.guard) if args.guard else ())]
        with running(command, f"http://127.0.0.1:{port}/readyz") as server:
            print("| words | mode | requests/s on one core | judged |\n|---|---|---|---|")
            for mode in args.modes.split(","):
                for words in WORDS:
                    url = f"http://127.0.0.1:{port}/v1/judge"
                    print(asyncio.run(rate(url, server, words=words, mode=mode, seconds=args.seconds)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--guard", help="default: the bundled one")
    parser.add_argument("--modes", default=",".join(MODES), help="for guards that reason: instant,full")
    parser.add_argument("--seconds", type=float, default=10)
    measure(parser.parse_args())
