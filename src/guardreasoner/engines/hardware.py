"""What this processor offers: cores that really exist, and number formats that it multiplies fast."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

GENTLE = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Makes waiting OpenMP threads sleep. By default they spin, and then a second job on the same cores slows both: on two
cores with other work, a step of training took 56 s with two spinning threads, 7 s with one, and no more with two that
sleep. OpenMP reads it once, when torch is loaded."""


def wait_gently() -> None:
    """Set `GENTLE` where the environment says nothing else; for the start of a process, before torch is loaded."""
    for name, value in GENTLE.items():
        os.environ.setdefault(name, value)


def available_cores() -> int:
    """Cores this process may use: by affinity, and by the control group's quota if there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def limit_threads(torch: ModuleType, threads: int | None = None, *, processes: int = 1) -> None:
    """Torch's threads on the CPU: as many as asked for, else at most this process's share of the cores.

    Args:
        threads: None = no more than the cores that are there, and no more than are set already.
    """
    wanted = threads or min(torch.get_num_threads(), max(1, available_cores() // processes))
    if wanted != torch.get_num_threads():
        torch.set_num_threads(wanted)


def multiplies_bf16(torch: ModuleType, device: str = "cpu") -> bool:
    """Whether the hardware multiplies bfloat16; without that, it is emulated at a hundredth of the speed of float32.

    Args:
        device: `cpu`, or a CUDA device.
    """
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.12 cannot say
    return any(bool(on) for name, on in found.items() if name.endswith("bf16"))
