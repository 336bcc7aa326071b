"""Everyday: ordinary product traffic, written for this project by one language model under one guide.

`everyday.jsonl` holds only domains that nothing is trained or fitted on. Each row is what a guard meets: a request
that has no reply yet, or a reply with its request. Since one model wrote every row, read differences between guards,
and compare with TF-IDF trained on the other domains (bench/everyday.py), rather than trust any single number.
"""

from __future__ import annotations

from guardreasoner.yaml_files import in_package

TEST_DOMAINS = ("a03", "a09", "b05", "c06", "c11", "d03", "e05", "f02", "p04", "q03", "r06")
"""Domains that nothing is trained or fitted on."""
EVERYDAY = "everyday"


def shipped(name: str) -> str:
    """The file behind the name of a benchmark that comes with the package; other names as they are."""
    return str(in_package("data/everyday.jsonl")) if name.lower() == EVERYDAY else name
