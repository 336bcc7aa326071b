"""The server's log: one JSON line per answer; judged text only if the policy asks for it, and redacted."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Sequence

from guardreasoner.types import Exchange, Verdict

log = logging.getLogger("guardreasoner.serve")
LONGEST = 2_000
"""Characters of a logged text."""

REDACTED: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("email", re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")),
    ("secret", re.compile(r"(?i)\b(?:bearer\s+|(?:api[_-]?key|token|password|passwd|secret)\s*[:=]\s*)\S+")),
    ("secret", re.compile(r"\b(?:sk|pk|ghp|gho|xox[abp]|AKIA|hf)[-_A-Za-z0-9]{12,}\b")),
    ("secret", re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")),
    ("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")),
    ("ip", re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b|\b(?:[0-9A-Fa-f]{1,4}:){3,7}[0-9A-Fa-f]{1,4}\b")),
    ("number", re.compile(r"(?<![\w.])\+?\d(?:[ ().-]{0,2}\d){6,18}(?!\w)")),  # cards, phones, accounts
)
"""Kinds of personal data that are replaced by their name, in this order."""


def redact(text: str) -> str:
    """A text without addresses, numbers and secrets that have a recognisable form; shortened."""
    shown = text[:LONGEST]
    for name, pattern in REDACTED:
        shown = pattern.sub(f"[{name}]", shown)
    return shown + ("…" if len(text) > LONGEST else "")


def log_judged(exchanges: Sequence[Exchange], verdicts: Sequence[Verdict], route: str, key: str) -> None:
    """One line per verdict, with the redacted texts."""
    for exchange, verdict in zip(exchanges, verdicts, strict=True):
        line = {
            "event": "judged",
            "route": route,
            "key": key,
            "status": verdict.status,
            "flagged": verdict.flagged,
            "fail_mode": verdict.fail_mode,
            "labels": verdict.labels.as_dict(),
            "prompt": redact(exchange.prompt),
            "response": None if exchange.response is None else redact(exchange.response),
        }
        log.info(json.dumps(line))


def set_up() -> None:
    """Send the server's log to standard error, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
