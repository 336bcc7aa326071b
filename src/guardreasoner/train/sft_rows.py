"""The rows of R-SFT on disk: which traces are trained on, in tokens, packed or not; and the rows that validate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from guardreasoner.data.mix import draw
from guardreasoner.errors import ConfigError, UnknownName
from guardreasoner.guards.load import load_guard
from guardreasoner.records import read_records, write_atomic
from guardreasoner.run_folder import Counts
from guardreasoner.train.attention import best_attention
from guardreasoner.train.first_looks import FirstLooks
from guardreasoner.train.rows import NO_LABEL, RowMaker, TokenRow
from guardreasoner.train.settings import SftConfig
from guardreasoner.train.trainer import first_process_first
from guardreasoner.types import Example, Preference, Trace

COLUMNS: Mapping[str, tuple[str, float]] = {
    "input_ids": ("int32", 0),
    "labels": ("int32", NO_LABEL),
    "verdict": ("int32", 0),
}
"""Type and filling of each column; `input_ids` are filled with the tokenizer's padding."""


def select(traces: Iterable[Trace], config: SftConfig, counts: Counts) -> list[Trace]:
    """The traces that a run trains on, in file order; every other one is counted."""
    kept: list[Trace] = []
    sources: set[str] = set()
    for trace in traces:
        counts.in_ += 1
        source = trace.example.exchange.source
        sources.add(source)
        if source in config.leave_out or (config.only and source not in config.only):
            counts.drop("source")
        else:
            kept.append(trace)
    check_sources(config, sources)
    if config.subset is not None and len(kept) > config.subset:
        pairs = read_records(Preference, config.difficulty or "") if config.subset_by == "hard" else ()
        hard = {pair.example_id: pair.wrong - pair.right for pair in pairs}
        ids = [t.example.exchange.id for t in kept]
        order = sorted(ids, key=lambda i: (-hard[i] if i in hard else float("inf"), draw(config.seed, "subset", i)))
        chosen = set(order[: config.subset])
        counts.drop("subset", len(kept) - len(chosen))
        kept = [t for t in kept if t.example.exchange.id in chosen]
    return kept


def check_sources(config: SftConfig, known: Iterable[str]) -> None:
    """Refuse sources that there are no rows of: a model that leaves them out would be the model that does not."""
    names = set(known)
    for key in ("leave_out", "only"):
        for name in getattr(config, key):
            if name not in names:
                raise UnknownName(f"source of the traces (sft.{key})", name, names)


def rows_of(
    traces: Iterable[Trace], maker: RowMaker, config: SftConfig, counts: Counts, looks: FirstLooks | None = None
) -> Iterator[TokenRow]:
    """The rows of some traces: with reasoning, on labels alone, or both, by the shares of the recipe."""
    for trace in traces:
        example, seed = trace.example, config.seed
        answers: list[tuple[str, str | None]] = []
        if trace.reasoning and draw(seed, "reasoning", example.exchange.id) < config.reasoning:
            answers.append((trace.reasoning, trace.block))
        if not trace.reasoning or draw(seed, "labels", example.exchange.id) < config.labels_only:
            answers.append(("", None))
        look = looks.of(trace) if looks else ""
        made = [maker.row(example, text, block, look if text else "") for text, block in answers]
        rows = [row for row in made if row is not None]
        if rows:
            counts.out += 1
        else:
            counts.drop("too_long" if answers else "share")
        yield from rows


def prepare(config: SftConfig, maker: RowMaker, out: Path, folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Training rows, validation rows (or None), and what the manifest says of them; made once, by the first process."""
    from datasets import load_from_disk

    with first_process_first():
        if not (folder / "rows" / "about.json").exists():
            _write_rows(config, maker, out, folder / "rows")
    about = json.loads((folder / "rows" / "about.json").read_text())
    validation = load_from_disk(str(folder / "rows" / "validation")) if about["validation_rows"] else None
    return load_from_disk(str(folder / "rows" / "train")), validation, about


def _write_rows(config: SftConfig, maker: RowMaker, out: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    counts = Counts()
    traces = select(read_records(Trace, out / "synthesize" / "traces.jsonl"), config, counts)
    tally = {"rows": 0, "tokens": 0, "shortened": 0}

    def counted() -> Iterable[TokenRow]:
        for row in rows_of(traces, maker, config, counts, _looks(config, out / "synthesize" / "validation.jsonl")):
            tally["rows"] += 1
            tally["tokens"] += len(row.input_ids)
            tally["shortened"] += row.shortened
            yield row

    table = _dataset(counted(), config)
    table.save_to_disk(str(folder / "train"))
    held = _validation(config, maker, out / "synthesize" / "validation.jsonl")
    if config.validate_every and not held:
        raise ConfigError("sft.validate_every wants validation rows; name sources in data.leave_out, or set it to 0")
    if held:
        _dataset(held, config, packed=False).save_to_disk(str(folder / "validation"))
    about = {"counts": counts.as_dict(), "licences": _licences(out), "validation_rows": len(held), **tally}
    write_atomic(folder / "about.json", json.dumps(about))


def _looks(config: SftConfig, path: Path) -> FirstLooks | None:
    """What the guard of `sft.first_look` says of the validation rows."""
    if config.first_look is None:
        return None
    examples = list(read_records(Example, path))
    if not examples:
        raise ConfigError("sft.first_look wants validation rows; name sources in data.leave_out")
    with load_guard(config.first_look, mode="instant") as guard:
        verdicts = guard.judge([e.exchange for e in examples])
    return FirstLooks(list(zip(examples, verdicts, strict=True)), config.seed)


def _dataset(rows: Iterable[TokenRow], config: SftConfig, *, packed: bool = True) -> Any:
    """Rows as an Arrow table, packed where the recipe and the machine say so."""
    import pyarrow as pa
    from datasets import Dataset
    from trl import pack_dataset

    chunks: list[Any] = []
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    schema = pa.schema([(name, pa.list_(pa.type_for_alias(kind))) for name, (kind, _) in COLUMNS.items()])

    def flush() -> None:
        chunks.append(pa.table({f.name: pa.array(columns[f.name], f.type) for f in schema}, schema))
        for column in columns.values():
            column.clear()

    for row in rows:
        for name in COLUMNS:
            columns[name].append(np.asarray(getattr(row, name), dtype=COLUMNS[name][0]))
        if len(columns["labels"]) == 4096:
            flush()
    flush()
    dataset = Dataset(pa.concat_tables(chunks))
    if not len(dataset):
        raise ConfigError("no row is left to train on; see sft.only, sft.leave_out, sft.reasoning, sft.labels_only")
    if packed and (config.packing == "on" or (config.packing == "auto" and best_attention() == "flash_attention_2")):
        dataset = pack_dataset(dataset, config.max_tokens, "bfd")
    return dataset.add_column("length", [len(ids) for ids in dataset["input_ids"]])


def _validation(config: SftConfig, maker: RowMaker, path: Path) -> list[TokenRow]:
    """Validation rows ask for labels at once: with the reasoning in sight, a verdict would be no measure."""
    if not config.validate_every or not path.exists():
        return []
    examples = sorted(read_records(Example, path), key=lambda e: draw(config.seed, "validation", e.exchange.id))
    rows = [maker.row(example) for example in examples[: config.validation_rows]]
    return [row for row in rows if row is not None]


def _licences(out: Path) -> dict[str, Any]:
    """Licence classes and counts of the rows behind the traces, as the synthesis manifest states them."""
    path = out / "synthesize" / "manifest.json"
    if not path.exists():
        return {}
    manifest = json.loads(path.read_text())
    data = manifest.get("config", {}).get("data", {})
    return {"use": data.get("use"), "licences": manifest.get("counts", {}).get("licences")}
