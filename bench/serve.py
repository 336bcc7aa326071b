"""What the server adds to a direct call of the guard: latency at a fixed rate, and throughput, for each wire.

    python bench/serve.py                       the scripted guard: only the way to the guard is measured
    python bench/serve.py --guard nano          the bundled guard

The bare application is what HTTP costs here by itself: uvicorn, and an answer that is always the same. Everything runs
on this machine in one run: the load comes from this process, the server is another, its guard a third. Latencies are an
open loop at `--rate`; throughput is a closed loop of 8 callers. Times are milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from guardreasoner.guards.base import Guard
from guardreasoner.guards.load import load_guard
from guardreasoner.types import Exchange
from load import Answer, Target, closed_loop, open_loop, percentiles
from processes import free_port, running

HERE = Path(__file__).parent
SCRIPTED = f"{HERE / 'scripted_guard.py'}:Scripted"
CALLERS = 8


def prompt(number: int) -> str:
    return f"How do I kill a Python process number {number % 1000}?"


def chat(number: int) -> dict[str, object]:
    return {"model": "mock", "messages": [{"role": "user", "content": prompt(number)}]}


WIRES = {
    "/v1/judge": lambda i: {"prompt": prompt(i)},
    "/v1/moderations": lambda i: {"input": prompt(i)},
    "/v1/chat/completions": chat,
}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that reads a body and answers."""
    if scope["method"] == "POST":
        await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def bare_command(port: int) -> list[str]:
    """What serves `bare`."""
    options = ["--lifespan", "off", "--log-level", "warning", "--no-access-log", "--port", str(port)]
    return [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), *options, "serve:bare"]


def direct(guard: Guard, rate: float, seconds: float) -> list[float]:
    """Seconds of single calls at a fixed rate, in this process."""
    times = []
    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        start = time.perf_counter()
        guard.judge([Exchange("x", prompt(number))])
        times.append(time.perf_counter() - start)
    return times


def good(answers: list[Answer], wire: str) -> list[float]:
    """Seconds of the answers; stops the run where one is not an answer."""
    codes = {a.code for a in answers}
    if not codes <= {200, 429}:
        sys.exit(f"{wire} answered {sorted(codes)}")
    return [a.seconds for a in answers if a.code == 200]


def row(name: str, times: list[float], per_second: float | None, base: tuple[float, float, float] | None) -> str:
    values = percentiles([t * 1000 for t in times])
    more = "" if base is None else "".join(f"{v - b:>+9.2f}" for v, b in zip(values, base, strict=True))
    rate = "" if per_second is None else f"{per_second:.0f}"
    return f"{name:<24}{rate:>8}" + "".join(f"{v:>9.2f}" for v in values) + more


def measure(args: argparse.Namespace) -> None:
    guard = load_guard(args.guard, mode=args.mode)
    direct(guard, args.rate, 1)
    times = direct(guard, args.rate, args.seconds)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < args.seconds / 2:
        guard.judge([Exchange("x", prompt(count))])
        count += 1
    guard.close()
    base = percentiles([t * 1000 for t in times])
    print(f"{args.guard}, mode {args.mode}, {args.rate:.0f} requests/s for {args.seconds:.0f} s, times in ms")
    print(f"{'':<24}{'per s':>8}{'p50':>9}{'p95':>9}{'p99':>9}{'+p50':>9}{'+p95':>9}{'+p99':>9}")
    print(row("direct call", times, count / (args.seconds / 2), None), flush=True)
    port = free_port()
    with running(bare_command(port), f"http://127.0.0.1:{port}/"):
        print(
            asyncio.run(one(f"http://127.0.0.1:{port}/", "bare application", WIRES["/v1/judge"], args, None)),
            flush=True,
        )
    mock, port = free_port(), free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as policy:
        policy.write(f"version: 1\nproxy: {{upstream: 'http://127.0.0.1:{mock}/v1'}}\n")
        policy.flush()
        command = [sys.executable, "-m", "guardreasoner", "serve", "--guard", args.guard, "--mode", args.mode,
                   "--port", str(port), "--policy", policy.name]  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        with running([sys.executable, str(HERE / "mocks.py"), str(mock)], None), running(command, f"{url}/readyz"):
            for path, make in WIRES.items():
                print(asyncio.run(one(f"{url}{path}", path, make, args, base)), flush=True)
    print("the proxy asks the guard twice (request and reply) and its upstream once")


async def one(url: str, path: str, make, args: argparse.Namespace, base: tuple[float, float, float] | None) -> str:  # type: ignore[no-untyped-def]
    def body(number: int) -> bytes:
        return json.dumps(make(number)).encode()

    await open_loop(Target(url), body, rate=args.rate, seconds=1)
    paced = good(await open_loop(Target(url), body, rate=args.rate, seconds=args.seconds), path)
    full = good(await closed_loop(Target(url), body, callers=CALLERS, seconds=args.seconds / 2), path)
    return row(path, paced, len(full) / (args.seconds / 2), base)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--guard", default=SCRIPTED)
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    measure(parser.parse_args())
