"""Several processes for one stage: torchrun, which does so on CPU too (accelerate's launcher starts one there).

On one machine `--processes N` is enough. Over several machines start the same command on each with torchrun itself:

    torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:PORT \\
        -m guardreasoner sft RECIPE --out DIR
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from guardreasoner.engines.hardware import available_cores
from guardreasoner.errors import ConfigError, GuardReasonerError, need

SENTENCE = "guardreasoner: "
"""How the line begins in which a command says what went wrong."""


def inside() -> bool:
    """Whether this process was started by torchrun."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def end_with_parent() -> None:
    """Let this process be ended when its parent ends, however that ended; Linux only."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGKILL))


def launch(command: Sequence[str], processes: int) -> None:
    """Run `guardreasoner COMMAND...` in several processes.

    Args:
        command: the words after `guardreasoner`, as for a single process.
    """
    need("torch", "train")
    import torch

    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise ConfigError(f"--processes {processes}, but this machine has {gpus} GPUs; give at most {gpus}")
    threads = max(1, available_cores() // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    words = [
        sys.executable, "-m", __name__, "--standalone", "--nproc_per_node", str(processes),
        "-m", "guardreasoner", *command,
    ]  # fmt: skip
    said = ""
    with subprocess.Popen(
        words, env=environment, stderr=subprocess.PIPE, text=True, errors="replace", preexec_fn=end_with_parent
    ) as running:
        for line in running.stderr or ():
            if line.startswith(SENTENCE):
                said = line.removeprefix(SENTENCE).strip()
            else:
                sys.stderr.write(line)
    if running.returncode:
        raise GuardReasonerError(said or f"{command[0]} in {processes} processes ended with code {running.returncode}")


def main(words: Sequence[str]) -> int:
    """torchrun without its tracebacks: of processes that failed, what they said stays the last thing to read."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    try:
        run.main(list(words))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode < 0:
            ended = signal.Signals(-failure.exitcode).name
            print(
                f"{SENTENCE}process {failure.global_rank} was ended by {ended} (SIGKILL: often too little memory, so "
                "lower micro_batch); the same command again resumes",
                file=sys.stderr,
            )
        return 1
    except SignalException as error:
        print(f"{SENTENCE}stopped by {error.sigval.name}; the same command again resumes", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
