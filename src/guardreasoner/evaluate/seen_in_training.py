"""What a guard saw in training of the benchmarks it is scored on: in- and out-of-distribution tags.

`train split`: it was trained on the train split of the benchmark's own source. `same pool`: it was trained on other
rows written from the same pool of prompts. Neither is an error, but a mean over such cells and others compares training
sets as much as guards. Reports therefore mark these cells and also give the mean without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from guardreasoner.yaml_files import packaged

Tag = Literal["train split", "same pool"]

_FILE = packaged("evaluate/seen_in_training.yaml")
TRAIN_SETS: Mapping[str, Mapping[str, Tag]] = _FILE["train_sets"]
GUARDS: Mapping[str, list[str]] = _FILE["guards"]
SOURCES: Mapping[str, list[str]] = _FILE["sources"]


def exposure(guard: str, sources: Iterable[str] | None = None) -> dict[str, Tag] | None:
    """Benchmark to tag of one guard; None = its training data are unknown.

    Args:
        sources: the sources of its training rows, where its manifest lists them.
    """
    if sources is not None:
        sets: Iterable[str] = {s for source in sources for s in SOURCES.get(source.lower(), ())}
    elif guard in GUARDS:
        sets = GUARDS[guard]
    else:
        return None
    found: dict[str, Tag] = {}
    for name in sorted(sets):
        for benchmark, tag in TRAIN_SETS[name].items():
            if found.get(benchmark) != "train split":
                found[benchmark] = tag
    return found


def sources_of(folder: str | Path) -> list[str] | None:
    """The sources that a model folder's manifest lists; None = it lists none, or there is no such folder."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text("utf-8"))
    sources = content.get("sources") or content.get("counts", {}).get("sources")
    return list(sources) if sources else None
