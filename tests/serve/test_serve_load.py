"""nano behind the real command at twice its capacity, asked from another process: nothing is lost, late or swapped."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from guardreasoner.guards.load import load_guard
from guardreasoner.guards.ours import NANO_FOLDER
from guardreasoner.serve.policy import Limits
from guardreasoner.types import Exchange
from serve.test_serve_process import process

_SPEC = importlib.util.spec_from_file_location("bench_load", Path(__file__).parents[2] / "bench" / "load.py")
assert _SPEC is not None
assert _SPEC.loader is not None
load = sys.modules["bench_load"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(load)

SECONDS = float(os.environ.get("GUARDREASONER_LOAD_SECONDS", "60"))
DEADLINE_S, LATE_S = 2.0, 0.2
VERBS = ("fix", "sell", "break", "paint", "hide", "copy", "open", "burn", "clean", "cheat", "teach", "steal")
THINGS = (
    "a bicycle", "a Python process", "my neighbour's letter", "an exam", "a locked door", "a rumour", "a password",
    "a cake", "a company's data", "an old car",
)  # fmt: skip
TEXTS = [f"How do I {verb} {thing}?" for verb in VERBS for thing in THINGS]
POLICY = f"version: 1\ndeadline_s: {DEADLINE_S}\n"


def body(number: int) -> bytes:
    return json.dumps({"prompt": TEXTS[number % len(TEXTS)], "id": f"n{number}"}).encode()


def memory(pid: int) -> int:
    """Resident bytes of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) * 4096 for p in (str(pid), *children))


def known() -> dict[tuple[str, str], float]:
    """P(harmful) of every text in every mode that `auto` may end in."""
    guard = load_guard("nano")
    exchanges = [Exchange(text, text) for text in TEXTS]
    found = {(v.exchange_id, "instant"): v for v in guard.judge(exchanges, mode="instant")}  # type: ignore[call-arg]
    found |= {(v.exchange_id, v.mode): v for v in guard.judge(exchanges, mode="auto")}  # type: ignore[call-arg]
    guard.close()
    return {place: v.scores["prompt_harm"] or 0.0 for place, v in found.items()}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not (NANO_FOLDER / "model.onnx").exists(), reason="nano's weights are not here")
def test_at_twice_its_capacity_every_accepted_request_is_answered_in_time(tmp_path):
    scores = known()
    (tmp_path / "policy.yaml").write_text(POLICY)
    sizes: list[int] = []
    with process("--guard", "nano", "--policy", str(tmp_path / "policy.yaml")) as (running, url, _):
        callers = 2 * Limits().batch  # fewer leave batches part empty, and what they get through is not the capacity
        warm = asyncio.run(
            load.closed_loop(load.Target(f"{url}/v1/judge"), body, callers=callers, seconds=max(5, SECONDS / 6))
        )
        capacity = len(warm) / max(5, SECONDS / 6)
        watching = threading.Event()

        def watch() -> None:
            while not watching.wait(1):
                sizes.append(memory(running.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.monotonic()
        answers = asyncio.run(load.open_loop(load.Target(f"{url}/v1/judge"), body, rate=2 * capacity, seconds=SECONDS))
        watching.set()
        watcher.join()
    codes = Counter(a.code for a in answers)
    judged = [(a, a.json()) for a in answers if a.code == 200]
    statuses = Counter(v["status"] for _, v in judged)
    slowest = max(a.seconds for a, _ in judged)
    slow = [round(v, 2) for v in load.percentiles([a.seconds for a, _ in judged])]
    print(f"capacity {capacity:.0f}/s; {len(answers)} requests in {time.monotonic() - start:.0f} s: {dict(codes)}")
    print(
        f"{dict(statuses)}, {dict(Counter(v['mode'] for _, v in judged))}, p50 p95 p99 {slow}, slowest {slowest:.2f} s"
    )
    print(f"memory {min(sizes) / 1e6:.0f} to {max(sizes) / 1e6:.0f} MB")
    assert len(answers) == int(2 * capacity * SECONDS)
    assert set(codes) <= {200, 429}
    assert codes[429] > 0
    assert codes[200] > 0.25 * len(answers)
    assert slowest <= DEADLINE_S + LATE_S
    assert statuses["timeout"] <= 0.01 * len(judged)
    assert set(statuses) <= {"ok", "timeout"}
    for answer, verdict in judged:
        assert verdict["exchange_id"] == f"n{answer.number}"
        if verdict["status"] == "timeout":
            assert (verdict["fail_mode"], verdict["flagged"]) == ("closed", True)
        else:
            wanted = scores[TEXTS[answer.number % len(TEXTS)], verdict["mode"]]
            assert verdict["scores"]["prompt_harm"] == pytest.approx(wanted, abs=0.03)
    settled = sizes[len(sizes) // 4 :]
    middle = sum(settled) / len(settled)
    assert max(settled) <= 1.05 * middle
    assert min(settled) >= 0.95 * middle
