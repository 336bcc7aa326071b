"""The scripted guard of the benchmarks: our own guard on the scripted engine, so that only the way to it is measured.

    guardreasoner serve --guard bench/scripted_guard.py:Scripted

It takes `GUARD_MS` milliseconds (environment; default 0) per judgement, as the mocked guard of `mocks.py` does.
"""

from __future__ import annotations

import os
from typing import Any

from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.guards.reasoning import ReasoningGuard


class Scripted(ReasoningGuard):
    """Certain about everything: `bad` is harmful, the rest is not."""

    def __init__(self, mode: Any = "auto", fail_mode: Any = "closed") -> None:
        delay = float(os.environ.get("GUARD_MS", "0")) / 1000
        engine = ScriptedEngine(scores={"bad": 0.97, "": 0.02}, delay_s=delay)
        super().__init__("scripted", engine, mode=mode, fail_mode=fail_mode)
