"""Fingerprints of the official benchmark files: 4 bytes per row, enough to name a wrong row, and no text.

`fingerprints.txt` has one line per benchmark: its name and the base64 of its rows' fingerprints, made of the official
file. They are checked wherever rows come from elsewhere: from the hub, whose sets change without notice, or from a
file of stored predictions, which may be cut, shuffled or of another benchmark.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from guardreasoner.data.sources import input_block
from guardreasoner.types import TASKS, Example, Labels
from guardreasoner.yaml_files import in_package

WIDTH, TEXT = 4, 3
"""Bytes per row, and how many of them are the text's: two different texts look alike once in 17 million."""


def fingerprint(block: str, gold: Labels) -> bytes:
    """Fingerprint of one row: 3 bytes of its input block, and its labels masked by a fourth (so they need the text)."""
    digest = hashlib.sha256(block.encode("utf-8", "surrogatepass")).digest()
    code = 0
    for task, row in TASKS.items():
        code = 3 * code + (None, row.positive, row.negative).index(gold[task])
    return digest[:TEXT] + bytes([digest[TEXT] ^ code])


def fingerprints(examples: Iterable[Example]) -> list[bytes]:
    """Fingerprints of examples, in order."""
    return [fingerprint(input_block(e.exchange.prompt, e.exchange.response), e.gold) for e in examples]


def text_hash(text: str) -> str:
    """64 bits of a text, in hex: tells which rows share a prompt without keeping it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@cache
def known() -> Mapping[str, tuple[bytes, ...]]:
    """Benchmark -> fingerprints of its rows, in order; benchmarks whose official file we never saw are absent."""
    lines = in_package("data/fingerprints.txt").read_text(encoding="ascii").split("\n")
    codes = {name: base64.b64decode(code) for name, code in (line.split() for line in lines if line)}
    return {name: tuple(c[i : i + WIDTH] for i in range(0, len(c), WIDTH)) for name, c in codes.items()}


def text_difference(
    name: str, found: Sequence[bytes], wanted: Sequence[bytes] | None = None, *, unit: str = "row"
) -> str | None:
    """How the texts of rows differ from those of a benchmark, in one sentence; None = not, or nothing is known.

    Args:
        name: a name of the benchmark table, or the title of a file of the user's own.
        found: fingerprints of the rows that are there, in order.
        wanted: fingerprints of the rows that should be there; those of the official file unless given.
        unit: what to call a row; `line` counts from 1, anything else from 0.
    """
    wanted = known().get(name) if wanted is None else wanted
    if wanted is None:
        return None
    here, there = [f[:TEXT] for f in found], [w[:TEXT] for w in wanted]
    if here == there:
        return None
    start = int(unit == "line")
    if Counter(here) == Counter(there):
        first = next(i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b)
        return f"the rows of {name} in another order: {unit} {first + start} holds {name}:{there.index(here[first])}"
    if (other := _nearest(name, here, there)) is not None:
        return f"these are rows of {other}, not of {name}"
    if len(here) != len(there):
        return f"{len(here)} rows where {name} has {len(there)}; {_count_detail(here, there, name, f'{unit} ', start)}"
    strange = [i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b]
    return f"{len(strange)} of {len(here)} rows are not those of {name}, the first is {unit} {strange[0] + start}"


def label_difference(
    name: str, found: Sequence[bytes], wanted: Sequence[bytes] | None = None, *, unit: str = "row"
) -> str | None:
    """Which gold label differs, in one sentence, where the texts are the same; None = none, or nothing is known."""
    wanted = known().get(name) if wanted is None else wanted
    if wanted is None:
        return None
    wrong = [i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b]
    if not wrong:
        return None
    return f"{len(wrong)} gold labels are not those of {name}, the first is on {unit} {wrong[0] + int(unit == 'line')}"


def _nearest(name: str, here: Sequence[bytes], there: Sequence[bytes]) -> str | None:
    """The benchmark that shares more rows than the one that is meant; None = there is none."""
    rows = Counter(here)
    shared = {n: (rows & Counter(w[:TEXT] for w in prints)).total() for n, prints in known().items() if n != name}
    best = max(shared, key=lambda n: shared[n])
    return best if shared[best] > (rows & Counter(there)).total() else None


def _count_detail(here: Sequence[bytes], there: Sequence[bytes], name: str, unit: str, start: int) -> str:
    if missing := Counter(there) - Counter(here):
        return f"{missing.total()} missing, the first is {name}:{next(i for i, r in enumerate(there) if r in missing)}"
    extra = Counter(here) - Counter(there)
    return f"{extra.total()} too many, such as {unit}{max(i for i, r in enumerate(here) if r in extra) + start}"
