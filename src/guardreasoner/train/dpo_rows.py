"""The pairs of HS-DPO in tokens, on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypedDict

from guardreasoner.errors import ConfigError
from guardreasoner.records import from_dict, read_records, write_atomic
from guardreasoner.run_folder import Counts
from guardreasoner.train.rows import RowMaker
from guardreasoner.train.settings import DpoConfig
from guardreasoner.train.trainer import first_process_first
from guardreasoner.types import Exchange, Preference


class Pair(TypedDict):
    """One preference in tokens."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    weight: float
    length: int


def pairs_of(preferences: Iterable[Preference], maker: RowMaker, config: DpoConfig, counts: Counts) -> Iterator[Pair]:
    """Preferences as tokens; prompt and longer answer share `max_tokens`, and what cannot is counted."""
    for preference in preferences:
        counts.in_ += 1
        chosen, rejected = maker.completion(preference.chosen), maker.completion(preference.rejected)
        longer = max(len(chosen), len(rejected))
        exchange = from_dict(Exchange, preference.prompt)
        _, prompt, _ = maker.fit(exchange, config.max_tokens - longer)
        if len(prompt) + longer > config.max_tokens:
            counts.drop("too_long")
            continue
        counts.out += 1
        weight = preference.weight if config.use_weights else 1.0
        yield Pair(
            prompt_ids=prompt,
            chosen_ids=chosen,
            rejected_ids=rejected,
            weight=weight,
            length=len(prompt) + longer,
        )


def prepare(config: DpoConfig, maker: RowMaker, preferences: Path, folder: Path) -> tuple[Any, dict[str, Any]]:
    """The pairs in tokens and what the manifest says of them; made once, by the first process."""
    from datasets import Dataset, load_from_disk

    with first_process_first():
        if not (folder / "about.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            counts = Counts()
            pairs = list(pairs_of(read_records(Preference, preferences), maker, config, counts))
            if not pairs:
                raise ConfigError(f"no pair fits in dpo.max_tokens {config.max_tokens}; raise it")
            Dataset.from_list([dict(pair) for pair in pairs]).save_to_disk(str(folder / "train"))
            tokens = sum(2 * len(p["prompt_ids"]) + len(p["chosen_ids"]) + len(p["rejected_ids"]) for p in pairs)
            write_atomic(folder / "about.json", json.dumps({"counts": counts.as_dict(), "tokens": tokens}))
    return load_from_disk(str(folder / "train")), json.loads((folder / "about.json").read_text())
