"""Everyday: ordinary product traffic, written for this project, as training rows and as a benchmark."""

from __future__ import annotations

TEST_DOMAINS = ("a03", "a09", "b05", "c06", "c11", "d03", "e05", "f02", "p04", "q03", "r06")
"""Domains that nothing is trained or fitted on."""
