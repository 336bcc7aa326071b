"""The paper's seed training sets: 5 rows, of which its recipes use 4 (paper Table 1).

They follow the released script (`train/reasoning_data_synthesis.py`). Its label rules differ from those of the test
sets: Aegis is labelled by plurality here, and by "at most one Safe of three" in `benchmarks`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from guardreasoner.data.sources import SkippedRow, Source, example_of, harm, is_safe, load_rows, take
from guardreasoner.errors import UnknownName
from guardreasoner.types import Example

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed training set."""

    name: str
    source: Source
    row: Callable[[Row], tuple[Example, ...] | SkippedRow]
    """One upstream row -> its examples; SafeRLHF rows hold two replies."""
    paper_n: int | None
    """Samples in the released GuardReasonerTrain."""
    paper_steps: int | None
    """Reasoning steps there."""
    used: bool = True
    """Whether a recipe of the paper trains on it."""


def _word(value: Any) -> str | None:
    return None if value in (None, "", "None") else str(value)


def wildguard_train(row: Row) -> tuple[Example, ...] | SkippedRow:
    """All three labels, null where not annotated; 48,783 rows have no reply."""
    labels = {
        "prompt_harm": _word(row.get("prompt_harm_label")),
        "refusal": _word(row.get("response_refusal_label")),
        "response_harm": _word(row.get("response_harm_label")),
    }
    if not any(labels.values()):
        return SkippedRow("no label")
    kind = str(row.get("subcategory") or ("adversarial" if row.get("adversarial") else "vanilla"))
    return (example_of(row["prompt"], row.get("response") or None, kind, **labels),)


def aegis_train(row: Row) -> tuple[Example, ...] | SkippedRow:
    """The most frequent of the annotators' labels (a tie: the first seen); `Safe` is unharmful, all else harmful.

    The released script has no filter on `text_type`: replies and dialogues are used as requests too.
    """
    votes = [row.get(f"labels_{i}") for i in range(int(row["num_annotations"]))]
    if not any(votes):
        return SkippedRow("no label")
    label = str(Counter(votes).most_common(1)[0][0])
    return (example_of(row["text"], prompt_harm=harm(label != "Safe"), category="" if label == "Safe" else label),)


def beavertails_train(row: Row) -> tuple[Example, ...] | SkippedRow:
    """The reply's label from `is_safe`; the paper leaves the other two to the teacher."""
    return (is_safe({**row, "response": row["response"] or None}),)


def toxic_chat_train(row: Row) -> tuple[Example, ...] | SkippedRow:
    """Human-annotated rows; `toxicity` decides."""
    if str(row["human_annotation"]).lower() not in ("true", "1"):
        return SkippedRow("no human annotation")
    return (example_of(row["user_input"], prompt_harm=harm(int(row["toxicity"]) == 1)),)


def safe_rlhf_train(row: Row) -> tuple[Example, ...] | SkippedRow:
    """Both replies of a pair, each with its own label."""
    return tuple(
        example_of(row["prompt"], row[f"response_{i}"] or None, response_harm=harm(not row[f"is_response_{i}_safe"]))
        for i in (0, 1)
    )


_UNPINNED = "commit unknown to us"

SEEDS: dict[str, Seed] = {
    s.name: s
    for s in (
        Seed("WildGuardTrain", Source("allenai/wildguardmix", "train", "wildguardtrain", gated=True,
                                      licence="ODC-BY-1.0", note=_UNPINNED), wildguard_train, 86_759, 323_930),
        Seed("AegisTrain", Source("nvidia/Aegis-AI-Content-Safety-Dataset-1.0", "train", licence="CC-BY-4.0",
                                  note=_UNPINNED), aegis_train, 10_798, 37_082),
        Seed("BeaverTailsTrain", Source("PKU-Alignment/BeaverTails", "30k_train", licence="CC-BY-NC-4.0",
                                        revision="8401fe609d288129cc684a9b3be6a93e41cfe678"),
             beavertails_train, 27_186, 90_553),
        Seed("ToxicChatTrain", Source("lmsys/toxic-chat", "train", "toxicchat0124", licence="CC-BY-NC-4.0",
                                      note=_UNPINNED), toxic_chat_train, 2_801, 9_094),
        Seed("SafeRLHFTrain", Source("PKU-Alignment/PKU-SafeRLHF", "train", "alpaca2-7b", licence="CC-BY-NC-4.0",
                                     note=f"listed by the paper, used by none of its recipes; {_UNPINNED}"),
             safe_rlhf_train, None, None, used=False),
    )
}  # fmt: skip
"""The seed sets, in the order of the paper's table."""


def find_seed(name: str) -> Seed:
    """A seed set by name, whatever the case."""
    by_name = {n.lower(): s for n, s in SEEDS.items()}
    if name.lower() not in by_name:
        raise UnknownName("seed set", name, SEEDS)
    return by_name[name.lower()]


def load_seed(name: str) -> tuple[list[Example], Counter[str]]:
    """The examples of a seed set from the hub, and how many rows were left out for which reason.

    Row id = `{Seed}:{index of the example, from 0}`.
    """
    seed = find_seed(name)
    examples: list[Example] = []
    dropped: Counter[str] = Counter()
    for taken in take(seed.row, load_rows(seed.source, seed.name), seed.name):
        if isinstance(taken, SkippedRow):
            dropped[taken.reason] += 1
            continue
        for example in taken:
            exchange = replace(example.exchange, id=f"{seed.name}:{len(examples)}", source=seed.name)
            examples.append(replace(example, exchange=exchange))
    return examples, dropped
