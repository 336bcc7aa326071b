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

from guardreasoner.data.everyday import EVERYDAY

Tag = Literal["train split", "same pool"]

TRAIN_SETS: Mapping[str, Mapping[str, Tag]] = {
    "WildGuardTrain": {"WildGuardTest": "train split"},
    "AegisTrain": {"AegisSafetyTest": "train split"},
    "BeaverTailsTrain": {"BeaverTails": "train split", "SafeRLHF": "same pool"},
    "ToxicChatTrain": {"ToxicChat": "train split"},
    "Aegis2Train": {"AegisSafetyTest": "same pool"},
    "SafeRLHFTrain": {"SafeRLHF": "train split", "BeaverTails": "same pool"},
    "EverydayTrain": {EVERYDAY: "same pool"},
}
"""Training set -> what it shares with benchmarks (PKU-SafeRLHF and BeaverTails share their prompts; everyday's other
domains their writer)."""

_GUARDREASONER = ("WildGuardTrain", "AegisTrain", "BeaverTailsTrain", "ToxicChatTrain")

GUARDS: Mapping[str, tuple[str, ...]] = {
    "constant": (),
    "guardreasoner-1b": _GUARDREASONER,
    "guardreasoner-3b": _GUARDREASONER,
    "guardreasoner-8b": _GUARDREASONER,
    "replay-1b": _GUARDREASONER,
    "replay-3b": _GUARDREASONER,
    "replay-8b": _GUARDREASONER,
    "wildguard": ("WildGuardTrain",),
    "beaverdam": ("BeaverTailsTrain",),
    "llama-guard-2-8b": ("BeaverTailsTrain",),
    "aegis-guard-defensive": ("AegisTrain",),
    "aegis-guard-permissive": ("AegisTrain",),
    "aegis-guard-2": ("Aegis2Train",),
}
"""Guard -> its training sets, as papers and cards say (paper Table 1; WildGuard; BeaverDam; the Llama Guard 2 card
warns that its sources overlap the BeaverTails test set). A guard that is not here is unknown, not clean."""

SOURCES: Mapping[str, tuple[str, ...]] = {
    "toxicchat_train": ("ToxicChatTrain",),
    "aegis2_sample900": ("Aegis2Train",),
    "pku_saferlhf_mini": ("SafeRLHFTrain",),
    "guardreasonertrain_prompts": _GUARDREASONER,
    "wildguard": ("WildGuardTrain",),
    "aegis": ("AegisTrain",),
    "beavertails": ("BeaverTailsTrain",),
    "toxicchat": ("ToxicChatTrain",),
    "everyday": ("EverydayTrain",),
}
"""Source of our training rows -> the training set it comes from; other sources share nothing with the benchmarks."""


def exposure(guard: str, sources: Iterable[str] | None = None) -> dict[str, Tag] | None:
    """Benchmark to tag of one guard; None = its training data are unknown.

    Args:
        guard: its name.
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
