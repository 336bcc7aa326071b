"""Threads and number formats are chosen from what the machine really has."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from guardreasoner.engines import hardware


def fake_torch(*, threads=8, flags=None, cuda=None):
    made = SimpleNamespace(threads=threads, cpu=SimpleNamespace(), cuda=cuda)
    made.get_num_threads = lambda: made.threads
    made.set_num_threads = lambda n: setattr(made, "threads", n)
    if flags is not None:
        made.cpu.get_capabilities = lambda: flags
    return made


def test_available_cores_is_at_least_one():
    assert 1 <= hardware.available_cores() <= (os.cpu_count() or 1)


def test_a_quota_of_the_control_group_counts(monkeypatch):
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(hardware.Path, "read_text", lambda _: "300000 100000\n")
    assert hardware.available_cores() == 3
    monkeypatch.setattr(hardware.Path, "read_text", lambda _: "max 100000\n")
    assert hardware.available_cores() == 16


@pytest.mark.parametrize(
    ("set_already", "asked", "processes", "wanted"), [(8, None, 1, 4), (1, None, 1, 1), (8, None, 2, 2), (1, 6, 2, 6)]
)
def test_torch_takes_no_more_threads_than_its_share_of_the_cores(monkeypatch, set_already, asked, processes, wanted):
    monkeypatch.setattr(hardware, "available_cores", lambda: 4)
    torch = fake_torch(threads=set_already)
    hardware.limit_threads(torch, asked, processes=processes)
    assert torch.threads == wanted


@pytest.mark.parametrize(
    ("flags", "fast"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        (None, False),
    ],
)
def test_bf16_is_fast_where_the_processor_multiplies_it(flags, fast):
    assert hardware.multiplies_bf16(fake_torch(flags=flags)) is fast


def test_a_gpu_that_only_emulates_bf16_does_not_count():
    cuda = SimpleNamespace(is_bf16_supported=lambda including_emulation=True: including_emulation)
    assert not hardware.multiplies_bf16(fake_torch(cuda=cuda), "cuda:0")


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_command_line_lets_waiting_threads_sleep_unless_told_otherwise(before, after):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": before} if before else {}
    code = (
        "import os, sys\nfrom guardreasoner.cli.main import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules\nprint(os.environ['OMP_WAIT_POLICY'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split()[-1] == after
