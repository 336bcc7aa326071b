"""Other people's packages in environments of their own, for tests that speak to the real thing.

`GUARDREASONER_PEERS` names a folder of ready environments (`<folder>/litellm/bin/python`, ...); under `CI=true` each
one is made by pip for the run; otherwise such tests are skipped.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PEERS = {
    "litellm": ("litellm[proxy]==1.106.*",),
    "nemo": ("nemoguardrails[server]==0.24.*",),
    "langchain": ("langchain>=1.4,<1.6",),
    "gai": ("guardrails-ai==0.11.*",),
}
"""Name of the environment -> what pip puts into it, beside what our base install needs."""

QUIET = {
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "NEMO_GUARDRAILS_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "OTEL_SDK_DISABLED": "true",
    "LANGSMITH_TRACING": "false",
    "GUARDRAILS_DISABLE_TELEMETRY": "1",
    "GUARDRAILS_RUN_SYNC": "true",
}
"""Switches that keep them from calling home."""


@functools.cache
def peer(name: str) -> Path:
    """The Python of an environment; the test is skipped where there is none and none may be made."""
    ready = os.environ.get("GUARDREASONER_PEERS")
    if ready:
        python = Path(ready) / name / "bin" / "python"
        if python.exists():
            return python
    if os.environ.get("CI") != "true":
        pytest.skip(f"no environment with {PEERS[name][0]}: set GUARDREASONER_PEERS, or CI=true to have it made")
    folder = Path(tempfile.mkdtemp(prefix=f"peer-{name}-"))
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PEERS[name], *ours]
    subprocess.run(pip, check=True, timeout=900, stdout=sys.stderr)
    return python


def quiet_env(**more: str) -> dict[str, str]:
    """The environment to run them in: switches off, no proxy in between, our sources importable."""
    kept = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    return {**kept, **QUIET, "NO_PROXY": "127.0.0.1,localhost", **more}
