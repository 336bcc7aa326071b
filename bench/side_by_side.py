"""Our proxy, the LiteLLM proxy and the NeMo Guardrails server, side by side on one machine in one run.

    python bench/side_by_side.py --peers DIR        DIR/litellm and DIR/nemo are virtual environments with
                                                    litellm[proxy]==1.106.* and nemoguardrails[server]==0.24.*

All three stand before the same mocked upstream (`--upstream-ms`) and ask a scripted guard (`--guard-ms`, 0: only the
way to it is measured) about every request and every reply. LiteLLM and NeMo ask it over HTTP from a bare socket server
that answers any number at once; ours is our own guard on the scripted engine, in its usual process, a batch at a time.
One worker each. The systems take turns; figures are medians of the runs. `added` is what a system adds to the upstream
alone at the same rate.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from load import Target, closed_loop, open_loop, percentiles
from processes import free_port, running

HERE = Path(__file__).parent
CONFIGS = HERE / "configs"
CALLERS = 8


def body(number: int) -> bytes:
    """A new text each time: nobody answers from memory."""
    text = f"How do I kill a Python process number {number} of {os.getpid()}?"
    return json.dumps({"model": "mock", "messages": [{"role": "user", "content": text}]}).encode()


@contextlib.contextmanager
def systems(peers: Path, delays: dict[str, str]) -> Iterator[dict[str, Target]]:
    """All of them running; URL of each one's chat route."""
    mock, ours, lite, nemo = (free_port() for _ in range(4))
    at = {"mock": f"http://127.0.0.1:{mock}", "ours": f"http://127.0.0.1:{ours}",
          "lite": f"http://127.0.0.1:{lite}", "nemo": f"http://127.0.0.1:{nemo}"}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for path in (p for p in CONFIGS.rglob("*") if p.is_file()):
            made = Path(folder) / path.relative_to(CONFIGS)
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(path.read_text().replace("UPSTREAM", at["mock"]).replace("GUARD", at["mock"]))
        master = "sk-" + os.urandom(32).hex()
        stack.enter_context(running([sys.executable, str(HERE / "mocks.py"), str(mock)], None, **delays))
        serve = [sys.executable, "-m", "guardreasoner", "serve", "--guard", f"{HERE / 'scripted_guard.py'}:Scripted"]
        serve += ["--mode", "instant", "--port", str(ours), "--policy", f"{folder}/guardreasoner.yaml"]
        stack.enter_context(running(serve, f"{at['ours']}/readyz", **delays))
        litellm = [str(peers / "litellm/bin/litellm"), "--config", f"{folder}/litellm.yaml", "--host", "127.0.0.1"]
        litellm += ["--port", str(lite), "--num_workers", "1"]
        stack.enter_context(running(litellm, f"{at['lite']}/health/liveliness", LITELLM_MASTER_KEY=master))
        rails = [str(peers / "nemo/bin/nemoguardrails"), "server", "--config", f"{folder}/nemo"]
        rails += ["--default-config-id", "guarded", "--port", str(nemo)]
        stack.enter_context(running(rails, f"{at['nemo']}/v1/rails/configs"))
        chat = "/v1/chat/completions"
        yield {
            "upstream alone": Target(at["mock"] + chat),
            "guardreasoner": Target(at["ours"] + chat),
            "LiteLLM proxy": Target(at["lite"] + chat, {"authorization": f"Bearer {master}"}),
            "NeMo server": Target(at["nemo"] + chat),
        }


async def measure(target: Target, rate: float, seconds: float) -> tuple[float, float, float, float]:
    """p50, p95 and p99 in ms at a rate, and answers per second of a closed loop."""
    paced = await open_loop(target, body, rate=rate, seconds=seconds)
    full = await closed_loop(target, body, callers=CALLERS, seconds=seconds)
    wrong = [a for a in paced + full if a.code != 200 or b"boiling water" not in a.body]
    if wrong:
        answers = {(a.code, a.body[:200]) for a in wrong}
        sys.exit(f"port {target.port}: {len(wrong)} of {len(paced + full)} were not answered: {answers}")
    return (*percentiles([a.seconds * 1000 for a in paced]), len(full) / seconds)


def main(args: argparse.Namespace) -> None:
    delays = {"UPSTREAM_MS": str(args.upstream_ms), "GUARD_MS": str(args.guard_ms)}
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    with systems(args.peers, delays) as all_systems:
        for target in all_systems.values():
            asyncio.run(measure(target, args.rate, 2))  # warm
        for _ in range(args.runs):
            for name, target in all_systems.items():
                found.setdefault(name, []).append(asyncio.run(measure(target, args.rate, args.seconds)))
    print(f"upstream {args.upstream_ms} ms, guard {args.guard_ms} ms twice; {args.rate:.0f} requests/s for latency, "
          f"{CALLERS} callers for throughput; medians of {args.runs} runs of {args.seconds:.0f} s")  # fmt: skip
    print(f"{'':<18}{'p50 ms':>9}{'p95':>9}{'p99':>9}{'added p50':>11}{'added p99':>11}{'per s':>9}{'vs ours':>9}")
    middle = {n: [statistics.median(column) for column in zip(*runs, strict=True)] for n, runs in found.items()}
    base, ours = middle["upstream alone"], middle["guardreasoner"]
    for name, (p50, p95, p99, rate) in middle.items():
        added = f"{p50 - base[0]:>11.1f}{p99 - base[2]:>11.1f}" if name != "upstream alone" else f"{'':>22}"
        ratio = f"{rate / ours[3]:>9.2f}" if name != "upstream alone" else ""
        print(f"{name:<18}{p50:>9.1f}{p95:>9.1f}{p99:>9.1f}{added}{rate:>9.0f}{ratio}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, required=True, metavar="DIR")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--upstream-ms", type=float, default=20)
    parser.add_argument("--guard-ms", type=float, default=0)
    main(parser.parse_args())
