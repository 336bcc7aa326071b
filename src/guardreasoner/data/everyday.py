"""Everyday: ordinary product traffic, written for this project by a language model under one guide.

`everyday.jsonl` holds the domains that nothing is trained or fitted on, each row as a guard meets it: a request before
there is a reply, and a reply with its request. One model wrote it all: what tells guards apart here is the difference
between two of them, beside TF-IDF trained on the other domains (bench/everyday.py), more than any number by itself.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

TEST_DOMAINS = ("a03", "a09", "b05", "c06", "c11", "d03", "e05", "f02", "p04", "q03", "r06")
"""Domains that nothing is trained or fitted on."""
EVERYDAY = "everyday"


def shipped(name: str) -> str:
    """The file behind the name of a benchmark that comes with the package; other names as they are."""
    return str(Path(str(files("guardreasoner.data"))) / "everyday.jsonl") if name.lower() == EVERYDAY else name
