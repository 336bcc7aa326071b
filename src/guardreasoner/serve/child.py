"""The process that holds the guard: loads it, judges what it is sent, and dies with its server.

`python -m guardreasoner.serve.child FD PID` is started by `worker`. Whatever the guard does here (crash, hang, exhaust
memory) costs this process and not the server. What it says about a failure is the kind of error and never the text.
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
from typing import Any

from guardreasoner.errors import GuardReasonerError
from guardreasoner.guards.base import Guard
from guardreasoner.serve.wire import CallOff, Event, Job, pack, receive_blocking
from guardreasoner.types import Exchange, Step, Verdict

NICE = 5
"""The server's loop goes first: it must be able to say `timeout` in time while the guard uses every core."""

FOLLOW_S = 0.5
"""How often the process looks whether its server still lives."""


class CalledOff(BaseException):
    """Nobody waits for the job any more. No `Exception`: what shields a guard from its engine's faults lets it by."""


def main(descriptor: int, parent: int) -> None:
    """Serve one server (its process id) over one socket until it closes."""
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a group signal must not stop the guard before the server has drained
    os.nice(NICE)
    warnings.simplefilter("ignore")  # a library's warning may quote what it was given
    sock = socket.socket(fileno=descriptor)
    try:
        sys.path[:] = receive_blocking(sock)
        guard = receive_blocking(sock)()
    except GuardReasonerError as error:
        sock.sendall(pack(Event("broken", value=str(error))))
        return
    except BaseException as error:
        sock.sendall(pack(Event("broken", value=f"the guard cannot be loaded ({type(error).__name__})")))
        return
    _warm_up(guard)
    options = frozenset(inspect.signature(guard.judge).parameters)
    sock.sendall(pack(Event("ready", value=guard.name)))
    with suppress(EOFError, OSError):
        while True:
            job = receive_blocking(sock)
            if isinstance(job, CallOff):  # it came too late
                continue
            answer = pack(_answer(guard, job, sock, options))
            if left := _left_running():
                sock.sendall(answer)
                for thread in left:
                    thread.join()
                answer = b""
            sock.sendall(answer + pack(Event("idle", job.number)))  # one write wakes the server once
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


def _answer(guard: Guard, job: Job, sock: socket.socket, known: frozenset[str]) -> Event:
    try:
        verdicts = _judge(guard, job, sock, known)
    except GuardReasonerError as error:
        return Event("failed", job.number, str(error))
    except Exception as error:
        return Event("failed", job.number, f"the guard failed ({type(error).__name__})")
    except CalledOff:
        return Event("failed", job.number, "the caller left")
    ids = [v.exchange_id for v in verdicts]
    if ids != [e.id for e in job.exchanges]:
        return Event("failed", job.number, "the guard's answers do not match what it was asked")
    return Event("done", job.number, tuple(verdicts))


def _judge(guard: Guard, job: Job, sock: socket.socket, known: frozenset[str]) -> Sequence[Verdict]:
    options: dict[str, Any] = {"mode": job.mode, "deadline": job.deadline, "max_escalations": 0}
    if job.steps:
        options["on_step"] = lambda index, step: _say(sock, job, index, step)
    return guard.judge(job.exchanges, **{k: v for k, v in options.items() if k in known})


def _say(sock: socket.socket, job: Job, index: int, step: Step) -> None:
    sock.sendall(pack(Event("step", job.number, (index, step))))
    if _called_off(sock):
        raise CalledOff


def _called_off(sock: socket.socket) -> bool:
    """Whether anything has come while a job is judged: it is called off, or the server is gone."""
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    return True


def _left_running() -> list[threading.Thread]:
    """Engines that were given up on at the deadline: they must not run beside the next job.

    Waiting for them has no limit here: the server's watchdog has one.
    """
    return [thread for thread in threading.enumerate() if thread.name.startswith("engine")]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
