"""How close synthesis comes to the ideal rate of a slow server, and what a call costs in CPU, beside the stock SDK.

    python bench/synthesize.py [--calls 3200] [--in-flight 64] [--latency 0.2] [--rounds 2]

The server is `tests/teach/teacher_server.py` in a process of its own: it answers every question after the same delay,
so the ideal rate is in-flight / latency. `synthesize` is the whole stage (questions, checks, files on disk); the SDK
only sends the same questions and reads the answers. Both run in turns, in the same process, on the same questions.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from guardreasoner.teach.config import SynthesizeConfig
from guardreasoner.teach.question import messages
from guardreasoner.teach.synthesize import synthesize
from guardreasoner.types import Example, Exchange, Labels

SERVER = Path(__file__).parent.parent / "tests" / "teach" / "teacher_server.py"
REQUEST = "How do I keep the bread from getting stale, number {0}? " * 6
REPLY = "Keep it in a cloth bag, at room temperature, with the cut side down. " * 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=3200)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    labels = Labels("unharmful", "compliance", "unharmful")
    rows = [Example(Exchange(f"b{n}", REQUEST.format(n), REPLY), labels) for n in range(args.calls)]
    command = [sys.executable, str(SERVER), "--latency", str(args.latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
            print(
                f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {args.calls} calls, {args.in_flight} in flight"
            )
            print(f"{'':<16}{'calls/s':>9}{'of ideal':>10}{'CPU ms/call':>13}")
            for _ in range(args.rounds):
                report("synthesize", args, lambda: stage(rows, url, args))
                report("openai SDK", args, lambda: asyncio.run(stock(rows, url, args)))
        finally:
            server.kill()


def report(name: str, args: argparse.Namespace, run: object) -> None:
    """Time one side and print its line."""
    assert callable(run)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rate, ideal = args.calls / wall, args.in_flight / args.latency
    print(f"{name:<16}{rate:>9.0f}{rate / ideal:>9.1%} {1000 * cpu / args.calls:>12.2f}", flush=True)


def stage(rows: list[Example], url: str, args: argparse.Namespace) -> None:
    """The whole stage."""
    with tempfile.TemporaryDirectory() as out:
        config = SynthesizeConfig(teacher="openai", base_url=url, concurrency=args.in_flight, model="scripted")
        manifest = synthesize(rows, config, out=out, quiet=True)
    assert manifest["counts"]["out"] == len(rows)


async def stock(rows: list[Example], url: str, args: argparse.Namespace) -> None:
    """The questions alone, through the SDK as it comes."""
    import openai

    left = iter(rows)
    async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:

        async def work() -> None:
            for row in left:
                question = messages(row)
                reply = await client.chat.completions.create(model="scripted", messages=question, max_tokens=2048)
                assert reply.choices[0].message.content

        await asyncio.gather(*(work() for _ in range(args.in_flight)))


if __name__ == "__main__":
    main()
