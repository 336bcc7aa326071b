"""Ten kills each of sampling, R-SFT and HS-DPO, at random moments: the end is that of a run nobody disturbed."""

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from dataclasses import replace

import pytest

pytest.importorskip("trl", reason="the train extra is not installed")

import torch
from datasets.utils import tqdm as bars
from safetensors.torch import load_file
from tqdm import tqdm

from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.records import read_jsonl
from guardreasoner.train.dpo import run_dpo
from guardreasoner.train.sample import SampleConfig, run_sample
from guardreasoner.train.sft import run_sft
from tiny_training import QUICK_DPO as DPO
from tiny_training import QUICK_SFT as SFT
from tiny_training import TINY, preference, write_run
from train_tools import write_traces

KILLS = 10
FORK = multiprocessing.get_context("fork")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def with_locks_of_its_own(work):
    """`work` for a forked child. Forked processes share tqdm's default lock: one killed with it in its hands leaves it
    locked for all. Each kind of bar used before the fork (datasets', transformers') has a lock of its own."""

    def give(kind, lock):
        kind.set_lock(lock)
        for below in kind.__subclasses__():
            give(below, lock)

    def alone():
        give(tqdm, threading.RLock())
        work()

    return alone


def killed_often(work, *, longest):
    """Run `work` in a child and kill it, ten times; then let it end. Returns how many kills struck."""
    lot, struck = random.Random(5), 0
    for _ in range(KILLS):
        child = FORK.Process(target=with_locks_of_its_own(work))
        child.start()
        time.sleep(lot.uniform(0.05, longest))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            struck += 1
        child.join()
    child = FORK.Process(target=with_locks_of_its_own(work))
    child.start()
    child.join()
    assert child.exitcode == 0
    return struck


def assert_same(one, two, stage):
    curves = [
        {row["step"]: row["loss"] for _, row in read_jsonl(out / stage / "log.jsonl") if "loss" in row}
        for out in (one, two)
    ]
    assert curves[0] == curves[1]
    first, second = (load_file(out / stage / "checkpoint" / "model.safetensors") for out in (one, two))
    assert all(torch.equal(first[name], second[name]) for name in first)
    counts = [json.loads((out / stage / "manifest.json").read_text())["counts"] for out in (one, two)]
    assert counts[0] == counts[1]


def test_a_child_killed_with_a_bar_s_lock_in_its_hands_blocks_no_later_one():
    held = FORK.Event()

    def bar():
        list(bars(range(3), disable=False))

    bar()  # in the parent first: the children inherit its lock

    def hold():
        with bars.get_lock():
            held.set()
            time.sleep(60)

    child = FORK.Process(target=with_locks_of_its_own(hold))
    child.start()
    assert held.wait(30)
    child.kill()
    child.join()
    for work in (with_locks_of_its_own(bar), bar):  # the second with the lock that the parent uses too
        child = FORK.Process(target=work)
        child.start()
        child.join(30)
        child.kill()
        assert child.exitcode == 0


def test_r_sft(tmp_path):
    config = replace(SFT, max_steps=300, save_every=5)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for out in (whole, killed):
        write_traces(out, 22)
    run_sft(config, TINY, out=whole)
    assert killed_often(lambda: run_sft(config, TINY, out=killed), longest=1.6) >= 5
    assert_same(whole, killed, "sft")


def test_hs_dpo(tmp_path):
    config = replace(DPO, max_steps=300, save_every=5)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for out in (whole, killed):
        write_run(out, [preference(n, 0.8 + 0.05 * n) for n in range(8)])
    run_dpo(config, TINY, out=whole)
    assert killed_often(lambda: run_dpo(config, TINY, out=killed), longest=1.6) >= 5
    assert_same(whole, killed, "dpo")


def test_sampling_asks_again_at_most_for_the_call_in_flight(tmp_path):
    write_traces(tmp_path, 60)
    asked = tmp_path / "asked.txt"
    config = SampleConfig(k=2, chunk=1)

    def answer(text):
        with open(asked, "a") as stream:
            stream.write(f"{hash(text)}\n")
        time.sleep(0.01)
        return "Answers: \nRequest: harmful\nCompletion: None\nResponse: None\n"

    def work():
        run_sample(config, out=tmp_path, open_model=lambda _: (ScriptedEngine(default=answer), "raw"))

    struck = killed_often(work, longest=0.2)
    rows = [row for _, row in read_jsonl(tmp_path / "sample" / "samples.jsonl")]
    ids = [row["example_id"] for row in rows]
    assert sorted(ids) == sorted(f"mild-{n}" for n in range(60))
    assert all(len(row["texts"]) == 2 for row in rows)
    repeated = len(asked.read_text().splitlines()) - 2 * 60
    assert struck >= 5
    assert 0 <= repeated <= 2 * struck
