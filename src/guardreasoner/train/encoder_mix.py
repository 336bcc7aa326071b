"""Which rows train nano, and which validate it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from guardreasoner.data.everyday import TEST_DOMAINS
from guardreasoner.errors import ConfigError, DataError
from guardreasoner.records import read_jsonl
from guardreasoner.train.encoder_joins import joined, worn
from guardreasoner.train.encoder_rows import (
    EncoderRow,
    contrast_rows,
    everyday_rows,
    plain_questions,
    read_traces,
    rows_of,
)
from guardreasoner.train.encoder_settings import EncoderData
from guardreasoner.types import TASKS, Example, Exchange, Labels, Message
from guardreasoner.yaml_files import in_package


def load_rows(data: str | Path, config: EncoderData) -> tuple[list[EncoderRow], dict[str, Any]]:
    """Training rows in a fixed order, and counts for the manifest.

    Args:
        data: the data folder with `train/`, and where they are there `traces/` and `everyday/`.
    """
    root, chosen = Path(data), random.Random(config.seed)
    ours = (*(_everyday(root, config) if config.everyday else ()), *(_contrasts(config) if config.contrasts else ()))
    plain = [*_sources(root, config, chosen), *ours]
    if not plain:
        raise ConfigError(f"{root} holds no row to train on; give the data folder with --data DIR")
    rows = plain + joined(plain, round(config.joined * len(plain)), chosen)
    rows = [worn(row, chosen) if chosen.random() < config.worn else row for row in rows]
    chosen.shuffle(rows)
    rows = rows[: config.rows]
    return rows, counted(rows)


def counted(rows: Sequence[EncoderRow]) -> dict[str, Any]:
    """Counts of training rows for the manifest: by source, licence, label, kind and attack."""
    about: dict[str, Any] = {"sources": dict(Counter(row.source for row in rows))}
    about["licences"] = dict(Counter(row.licence for row in rows))
    about["labels"] = {t.value: dict(Counter(str(row.labels[i]) for row in rows)) for i, t in enumerate(TASKS)}
    about["kinds"] = dict(Counter(str(row.kind) for row in rows if row.harmful))
    about["attack"] = dict(Counter(str(row.attack) for row in rows))
    return about


def _sources(root: Path, config: EncoderData, chosen: random.Random) -> Iterator[EncoderRow]:
    traces = read_traces(root / "traces" / "traces.jsonl")
    for path in sorted((root / "train").glob("*.jsonl")):
        if path.stem in config.leave_out:
            continue
        rows = [values for values in _labelled(path) if values["use"] in config.use]
        chosen.shuffle(rows)
        taken = plain_questions(rows) if path.stem == "gptfuzz" else rows
        made = [
            row
            for values in taken[: config.caps.get(path.stem, config.default_cap)]
            for row in rows_of(values, traces, config, chosen)
        ]
        yield from made * config.repeat.get(path.stem, 1)


def _labelled(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of the data folder, with what it leaves out: a name, where it comes from, labels, licence."""
    given: dict[str, Any] = {"source": path.stem, "response": None, "context": [], "steps": {}, "category": None}
    given |= {"use": "unstated", "licence": "unstated", **{t.value: None for t in TASKS}}
    for line, values in read_jsonl(path):
        if not isinstance(values.get("prompt"), str):
            raise DataError("a row has a `prompt`, which is a text", file=str(path), line=line, field="prompt")
        yield {"id": f"{path.stem}-{line:05d}", **given, **values}


def _everyday(root: Path, config: EncoderData) -> Iterator[EncoderRow]:
    for path in sorted((root / "everyday").glob("*.jsonl")):
        if path.stem not in TEST_DOMAINS and path.stem not in config.leave_out:
            made = [row for values in _labelled(path) for row in everyday_rows(values)]
            yield from made * config.repeat.get("everyday", 1)


def _contrasts(config: EncoderData) -> Iterator[EncoderRow]:
    groups: dict[str, dict[EncoderRow, None]] = {}  # replies share requests, and each request is one row
    for _, values in read_jsonl(in_package("data/contrasts.jsonl")):
        group = groups.setdefault(values["id"].rpartition("-")[0], {})
        group.update(dict.fromkeys(contrast_rows(values)))
    for name, made in groups.items():
        yield from [*made] * config.repeat.get(name, config.repeat.get("contrasts", 1))


def validation_rows(data: str | Path, config: EncoderData) -> list[Example]:
    """Labelled rows of what is left out, in a fixed order; thresholds are fitted on them, weights are not."""
    root, chosen = Path(data), random.Random(config.seed)
    made = []
    for name in config.leave_out:
        folder = "train" if (root / "train" / f"{name}.jsonl").exists() else "everyday"
        path = root / folder / f"{name}.jsonl"
        if not path.exists() or name in TEST_DOMAINS:
            raise ConfigError(f"leave_out names {name!r}, which is no source and no domain to validate on in {root}")
        rows = list(_labelled(path))
        chosen.shuffle(rows)
        for values in rows[: config.leave_out_cap]:
            context = tuple(Message(**m) for m in values.get("context") or ())
            exchange = Exchange(values["id"], values["prompt"], values["response"] or None, context, values["source"])
            gold = Labels.of({t: values[t.value] for t in TASKS})
            made.append(Example(exchange, gold, str(values["category"] or "")))
    return made
