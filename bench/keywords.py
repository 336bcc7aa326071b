"""A keyword list as a guard: the floor that attacks are measured against.

    guardreasoner stress --guard bench/keywords.py:KeywordGuard --out RUN

The list is not written by hand and not in this file: it is the `WORDS` words that speak most for harm (log-odds with
one added to each count) in the labelled training rows of GUARDREASONER_DATA, at most `CAP` rows of a source. A request
that holds one of them is harmful.
"""

import math
import os
import re
from collections import Counter
from pathlib import Path

from guardreasoner.errors import ConfigError
from guardreasoner.guards.base import Judging
from guardreasoner.records import read_jsonl
from guardreasoner.types import Labels, Task, Verdict

WORDS = 150
CAP = 500
FEWEST = 30
"""Harmful requests that a word must occur in."""
_WORD = re.compile(r"[a-z]{3,}")


class KeywordGuard(Judging):
    """Flags a conversation or request in which a word of the list stands."""

    name = "keywords"
    tasks = (Task.prompt_harm,)

    def __init__(self, folder=None):
        data = os.environ.get("GUARDREASONER_DATA")
        if not folder and not data:
            raise ConfigError("the keyword list is read off DATA/train/*.jsonl: set GUARDREASONER_DATA=DATA")
        seen = {True: Counter(), False: Counter()}
        rows = {True: 1, False: 1}
        for path in sorted(Path(folder or Path(data) / "train").glob("*.jsonl")):
            for number, (_, row) in enumerate(read_jsonl(path)):
                if number < CAP and row.get("prompt_harm"):
                    harmful = row["prompt_harm"] == "harmful"
                    seen[harmful].update(set(_WORD.findall(row["prompt"].lower())))
                    rows[harmful] += 1
        odds = {
            word: math.log((count + 1) / rows[True]) - math.log((seen[False][word] + 1) / rows[False])
            for word, count in seen[True].items()
            if count >= FEWEST
        }
        self.words = frozenset(sorted(odds, key=lambda word: (-odds[word], word))[:WORDS])

    def judge(self, exchanges):
        return [self._verdict(exchange) for exchange in exchanges]

    def _verdict(self, exchange):
        text = " ".join([*(m.content for m in exchange.context), exchange.prompt]).lower()
        found = not self.words.isdisjoint(_WORD.findall(text))
        labels = Labels("harmful" if found else "unharmful")
        return Verdict(exchange.id, self.name, "instant", "ok", labels=labels, flagged=found)
