"""The process that holds the guard: it loads the guard, judges what it is sent, and ends when its server does.

`worker` starts it as `python -m guardreasoner.serve.core.child FD PID`. Whatever the guard does here (crash, hang,
exhaust memory) costs this process and not the server. It reports the kind of a failure, never its text.
"""

from __future__ import annotations

import inspect
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

from guardreasoner.errors import GuardReasonerError
from guardreasoner.guards.base import Guard, sound
from guardreasoner.serve.core.frames import CallOff, ChildSocket, Event, JudgeJob, Loaded
from guardreasoner.types import Exchange, Step, Verdict

NICE = 5
"""The server's loop goes first: it must be able to say `timeout` in time while the guard uses every core."""

FOLLOW_S = 0.5
"""How often the process looks whether its server still lives."""


class CalledOff(BaseException):
    """The caller of the job has left. Not an `Exception`, so that handlers of engine faults do not catch it."""


def main(descriptor: int, parent: int) -> None:
    """Serve one server (its process id) over one socket until it closes."""
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a group signal must not stop the guard before the server has drained
    warnings.simplefilter("ignore")  # a library's warning may quote what it was given
    line = ChildSocket(socket.socket(fileno=descriptor))
    try:
        sys.path[:] = line.next()
        guard = line.next()()
    except GuardReasonerError as error:
        line.say(Event("broken", value=str(error)))
        return
    except BaseException as error:
        line.say(Event("broken", value=f"the guard cannot be loaded ({type(error).__name__})"))
        return
    _warm_up(guard)
    os.nice(NICE)  # only now: until it is loaded nobody is answered
    options = frozenset(inspect.signature(guard.judge).parameters)
    line.say(Event("ready", value=Loaded.of(guard), idle=True))
    with suppress(EOFError, OSError):
        while True:
            job = line.next()
            if isinstance(job, CallOff):  # it came too late
                continue
            kind, value = _answer(guard, job, line, options)
            left = _left_running()
            line.say(Event(kind, job.number, value, idle=not left))
            if left:
                for thread in left:
                    thread.join()
                line.say(Event("idle", job.number, idle=True))
    os._exit(0)  # the server is gone; an engine's thread may never end by itself


def _warm_up(guard: Guard) -> None:
    """Judge something once: the first judgement loads and compiles what later ones use, and would miss its deadline."""
    with suppress(Exception):
        guard.judge([Exchange("warm-up", "Hello.")])


def _follow(parent: int) -> None:
    """End this process when its server has died, whatever the guard is doing."""
    while os.getppid() == parent:
        time.sleep(FOLLOW_S)
    os._exit(0)


def _answer(
    guard: Guard, job: JudgeJob, line: ChildSocket, known: frozenset[str]
) -> tuple[Literal["done", "failed"], Any]:
    try:
        verdicts = _judge(guard, job, line, known)
    except GuardReasonerError as error:
        return "failed", str(error)
    except Exception as error:
        return "failed", f"the guard failed ({type(error).__name__})"
    except CalledOff:
        return "failed", "the caller left"
    if [v.exchange_id for v in verdicts] != [e.id for e in job.exchanges]:
        return "failed", "the guard's answers do not match what it was asked"
    return "done", tuple(sound(verdict, guard) for verdict in verdicts)


def _judge(guard: Guard, job: JudgeJob, line: ChildSocket, known: frozenset[str]) -> Sequence[Verdict]:
    options: dict[str, Any] = {"mode": job.mode, "deadline": job.deadline, "max_escalations": 0}
    if job.tasks is not None:
        options["tasks"] = job.tasks
    if job.steps:
        options["on_step"] = lambda index, step: _say(line, job, index, step)
    return guard.judge(job.exchanges, **{k: v for k, v in options.items() if k in known})


def _say(line: ChildSocket, job: JudgeJob, index: int, step: Step) -> None:
    line.say(Event("step", job.number, (index, step)))
    if line.stirs():  # the job is called off, or the server is gone
        raise CalledOff


def _left_running() -> list[threading.Thread]:
    """Engines that were given up on at the deadline: they must not run beside the next job.

    Waiting for them has no limit here: the server's watchdog has one.
    """
    return [thread for thread in threading.enumerate() if thread.name.startswith("engine")]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
