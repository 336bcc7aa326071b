"""Several processes for one stage: torchrun, which does so on CPU too (accelerate's launcher starts one there).

On one machine `--processes N` is enough. Over several machines start the same command on each with torchrun itself:

    torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:PORT \\
        -m guardreasoner sft RECIPE --out DIR
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from guardreasoner.engines.hardware import available_cores
from guardreasoner.errors import ConfigError, need


def inside() -> bool:
    """Whether this process was started by torchrun."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(command: Sequence[str], processes: int) -> int:
    """Run `guardreasoner COMMAND...` in several processes; returns the exit code.

    Args:
        command: the words after `guardreasoner`, as for a single process.
        processes: how many.

    Raises:
        ConfigError: fewer than one process, or more than there are GPUs, where there are any.
    """
    need("torch", "train")
    if processes < 1:
        raise ConfigError("--processes wants a number of at least 1")
    import torch

    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise ConfigError(f"--processes {processes}, but this machine has {gpus} GPUs; give at most {gpus}")
    threads = max(1, available_cores() // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes),
        "-m", "guardreasoner", *command,
    ]  # fmt: skip
    return subprocess.run(words, env=environment, check=False).returncode
