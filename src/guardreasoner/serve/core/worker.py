"""The server's side of the guard's process: start it, send it jobs, watch it, replace it."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from guardreasoner.errors import EngineError
from guardreasoner.serve.core.frames import CallOff, Event, JudgeJob, Loaded, Opener, cut, pack
from guardreasoner.types import Step, Verdict

log = logging.getLogger("guardreasoner.serve")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Between replacements: doubled each time, from the start again once a process has loaded its guard."""
PRIVATE = ("GUARDREASONER_API_KEYS", "GUARDREASONER_UPSTREAM_KEY")
"""Variables that are the server's own: the guard's process does not get them."""

StepSink = Callable[[int, Step], None]
VerdictSink = Callable[[tuple[Verdict, ...]], None]


class GuardBroken(EngineError):
    """The guard raised, or its process died or hung; `alone` may succeed where the batch did not."""

    retryable = True


@dataclass(frozen=True, slots=True)
class _Handed:
    """A job that the process has, or is about to have."""

    answered: asyncio.Future[float]
    """`time.monotonic()` seconds of the answer."""
    on_verdicts: VerdictSink
    on_step: StepSink | None


class Frames(asyncio.Protocol):
    """The server's end: hands on each event as its last byte arrives, without a task in between."""

    def __init__(self, hear: Callable[[Event], None]) -> None:
        self.first, self.ended = asyncio.Event(), asyncio.Event()
        """Set with the first event, and when the other end is gone (which sets both)."""
        self._hear = hear
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        """Bytes arrived."""
        self._buffer += data
        while (frame := cut(self._buffer)) is not None:
            self._hear(pickle.loads(frame))
            self.first.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end is gone."""
        self.first.set()
        self.ended.set()


async def ended(task: asyncio.Task[None] | None) -> None:
    """Cancel a task, and wait until it has ended."""
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Worker:
    """One guard process. It judges one job at a time."""

    def __init__(
        self, opener: Opener, *, hang_s: float, load_s: float = 900.0, on_loss: Callable[[], None] = lambda: None
    ) -> None:
        """Args:
        opener: makes the guard, in the process.
        hang_s: seconds past a job's deadline after which the process is replaced.
        load_s: seconds that loading may take.
        on_loss: called for each process that ended and is replaced.
        """
        self.opener, self.hang_s, self.load_s, self.on_loss = opener, hang_s, load_s, on_loss
        self.guard = Loaded()
        self.starts = 0
        """Processes started so far; what is remembered about an earlier one is void."""
        self.broken: str | None = None
        """Why the guard could not be loaded, while that is so."""
        self.loaded = asyncio.Event()
        """Set once loading has ended, well or not."""
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._process: Process | None = None
        self._pipe: asyncio.Transport | None = None
        self._waiting: dict[int, _Handed] = {}
        self._task: asyncio.Task[None] | None = None
        self._served = False
        """Whether the present process has loaded its guard."""

    @property
    def name(self) -> str:
        """The guard's."""
        return self.guard.name

    @property
    def ready(self) -> bool:
        """Whether a guard is loaded."""
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """The process that holds the guard."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process and keep one running until `close`."""
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End the process."""
        await ended(self._task)
        self._task = None

    async def free(self) -> None:
        """Wait until a job can be handed over; a process that stays busy after its job is replaced."""
        while True:
            await self._ready.wait()
            start = self.starts
            if self._idle.is_set():
                return
            try:
                async with asyncio.timeout(self.hang_s):
                    await self._idle.wait()
                return
            except TimeoutError:
                if self._ready.is_set() and self.starts == start:
                    self._kill("does not come back from its last job")

    def hand_over(self, job: JudgeJob, on_verdicts: VerdictSink, on_step: StepSink | None = None) -> None:
        """Send a job to the process; `answered` must be awaited next.

        Args:
            job: what to judge.
            on_verdicts: called with the verdicts, in order, as they arrive.
            on_step: called with each reasoning step.

        Raises:
            GuardBroken: there is no process.
        """
        if self._pipe is None:
            raise GuardBroken("the guard's process is being replaced")
        self._pipe.write(pack(job))
        self._waiting[job.number] = _Handed(asyncio.get_running_loop().create_future(), on_verdicts, on_step)
        self._idle.clear()

    async def answered(self, job: JudgeJob) -> float:
        """Wait until a job that was handed over has been judged; returns when that was, in `time.monotonic()` seconds.

        Raises:
            GuardBroken: the guard raised, its process died or hung, or the job was called off.
        """
        try:
            async with asyncio.timeout(max(0.0, job.deadline - time.monotonic()) + self.hang_s):
                return await self._waiting[job.number].answered
        except TimeoutError:
            self._kill("hangs")
            raise GuardBroken("the guard hung; its process is being replaced") from None
        finally:
            self._waiting.pop(job.number, None)

    def call_off(self, job: JudgeJob) -> None:
        """The caller of a job has left: a job that reports steps ends at the next one, any other runs to its end."""
        handed = self._waiting.get(job.number)
        if job.steps and handed is not None and not handed.answered.done() and self._pipe is not None:
            self._pipe.write(pack(CallOff(job.number)))

    def _kill(self, why: str) -> None:
        log.warning("the guard's process %s; it is being replaced", why)
        self._ready.clear()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _keep(self) -> None:
        """Keep one process running. What goes wrong while one is started (no memory, no descriptors) may pass."""
        pause = FIRST_PAUSE_S
        while True:
            self._served, before = False, self.starts
            try:
                await self._live()
            except Exception as error:
                log.warning("the guard's process cannot be started (%s); trying again", type(error).__name__)
            finally:
                self._ready.clear()
                self._idle.clear()
            for _ in range(self.starts - before):
                self.on_loss()
            started = self.starts > before
            pause = FIRST_PAUSE_S if self._served or not started else min(2 * pause, LONGEST_PAUSE_S)
            await asyncio.sleep(pause)

    async def _live(self) -> None:
        """One process from start to end."""
        frames = Frames(self._hear)
        pipe = await self._start(frames)
        self.starts += 1
        try:
            pipe.write(pack(sys.path) + pack(self.opener))
            async with asyncio.timeout(self.load_s):
                await frames.first.wait()
            if self.broken is None:
                await frames.ended.wait()
                log.warning("the guard's process ended; it is being replaced")
        except TimeoutError:
            self.broken = f"the guard did not load within {self.load_s:.0f} s"
            self.loaded.set()
        finally:
            await self._bury(pipe)

    async def _start(self, frames: Frames) -> asyncio.Transport:
        """A new process, and our end of the socket that it listens on.

        Raises:
            OSError: there is no descriptor, process or memory left for it.
        """
        ours, theirs = socket.socketpair()
        command = (sys.executable, "-m", "guardreasoner.serve.core.child", str(theirs.fileno()), str(os.getpid()))
        environment = {name: value for name, value in os.environ.items() if name not in PRIVATE}
        try:
            pipe, _ = await asyncio.get_running_loop().create_connection(lambda: frames, sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        try:
            self._process = await asyncio.create_subprocess_exec(*command, pass_fds=(theirs.fileno(),), env=environment)
        except BaseException:
            pipe.close()
            raise
        finally:
            theirs.close()
        self._pipe = pipe  # already now: a job may be handed over as soon as the first event is heard
        return pipe

    async def _bury(self, pipe: asyncio.Transport) -> None:
        self._pipe = None
        self._ready.clear()
        pipe.close()
        for handed in self._waiting.values():
            if not handed.answered.done():
                handed.answered.set_exception(GuardBroken("the guard's process died"))
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(asyncio.ensure_future(process.wait()))

    def _hear(self, event: Event) -> None:
        handed = self._waiting.get(event.number)
        if event.idle:
            self._idle.set()
        if event.kind == "ready":
            self.guard, self.broken = event.value, None
            self._served = True
            self._ready.set()
            self.loaded.set()
        elif event.kind == "broken":
            self.broken = event.value
            self.loaded.set()
        elif handed is None or handed.answered.done():
            return
        elif event.kind == "done":
            handed.on_verdicts(event.value)
            handed.answered.set_result(time.monotonic())
        elif event.kind == "failed":
            handed.answered.set_exception(GuardBroken(event.value))
        elif event.kind == "step" and handed.on_step is not None:
            handed.on_step(*event.value)
