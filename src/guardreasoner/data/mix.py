"""The training mix, from labelled rows on disk: which licences, how many rows per source, which sources validate.

A row is one JSON line: `id source prompt response prompt_harm refusal response_harm category licence use`. The same
rows, configuration and seed give the same mix, whatever the order of files and lines.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from guardreasoner.data.written_reasoning import FILE, Written, check, read_written, written
from guardreasoner.errors import ConfigError, DataError, UnknownName
from guardreasoner.records import read_jsonl
from guardreasoner.run_folder import Counts
from guardreasoner.types import TASKS, Example, Exchange, Labels, Message
from guardreasoner.yaml_files import in_package

USES = ("permissive", "noncommercial", "unstated")
"""The licence classes of a row, most liberal first."""


@dataclass(frozen=True)
class DataConfig:
    """Which rows train, which validate."""

    folder: str | tuple[str, ...] | None = None
    """Folder of `*.jsonl` files inside the data folder (`train`), or several; None = the small set that comes with the
    package. A row with a `domain` has the source `SOURCE-DOMAIN`, so that domains can be left out."""
    reasoned: bool = False
    """Train only on rows with written reasoning (`data/written_reasoning.py`) whose writer disputes no label. Labels
    that the source lacks are the writer's."""
    seeds: tuple[str, ...] = ()
    """The paper's seed sets by name, from the hub, instead of a folder; sources are named as they are."""
    use: tuple[str, ...] = ("permissive",)
    """Licence classes that train: permissive, noncommercial, unstated."""
    validation_use: tuple[str, ...] | None = None
    """Licence classes that validate; None = the same. Thresholds are fitted on these rows, weights are not."""
    caps: Mapping[str, int] = field(default_factory=dict)
    """Most rows per source; of one that is not named, all."""
    leave_out: tuple[str, ...] = ()
    """Sources that validate and never train: random splits flatter, because the source gives the label away."""
    leave_out_cap: int | None = 250
    """Most validation rows of a source that `caps` does not name."""
    drop: tuple[str, ...] = ()
    """Sources not used at all."""
    only: tuple[str, ...] = ()
    """The only sources that train, where given (the diversity models leave out one seed set each)."""
    limit: int | None = None
    """Most training rows in all."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (*self.use, *(self.validation_use or ())):
            if name not in USES:
                raise UnknownName("licence class", name, USES)


@dataclass
class MixCounts(Counts):
    """`in` = rows read, `out` = training rows; validation rows are dropped as `validation`."""

    sources: Counter[str] = field(default_factory=Counter)
    """Training rows by source."""
    licences: Counter[str] = field(default_factory=Counter)
    """Training rows by licence as stated upstream."""

    def as_dict(self) -> dict[str, Any]:
        parts = {"sources": self.sources, "licences": self.licences}
        return super().as_dict() | {name: dict(sorted(value.items())) for name, value in parts.items()}


@dataclass(frozen=True, slots=True)
class _MixRow:
    example: Example
    use: str
    licence: str
    written: Written | None = None

    @property
    def id(self) -> str:
        return self.example.exchange.id

    @property
    def source(self) -> str:
        return self.example.exchange.source


def load_mix(config: DataConfig, data_dir: str | Path | None = None) -> tuple[list[Example], list[Example], MixCounts]:
    """Training examples, validation examples, and where every row went.

    Args:
        data_dir: the data folder; not needed for the bundled set.
    """
    skipped: Counter[str] = Counter()
    rows = list(_seed_rows(config, skipped) if config.seeds else _rows(config, data_dir))
    _check_names(config, {row.source for row in rows})
    counts = MixCounts(in_=len(rows) + skipped.total(), dropped=skipped)
    train, validation = _select(rows, config, counts)
    train = sorted(train, key=lambda r: _draw(config.seed, "order", r.id))
    if config.limit is not None and len(train) > config.limit:
        counts.drop("limit", len(train) - config.limit)
        train = train[: config.limit]
    if not train:
        raise ConfigError(f"the mix leaves no row to train on ({dict(counts.dropped)} left out); widen `use` or `caps`")
    counts.out = len(train)
    counts.sources.update(r.source for r in train)
    counts.licences.update(r.licence for r in train)
    return [r.example for r in train], [r.example for r in validation], counts


def load_written(config: DataConfig, data_dir: str | Path | None = None) -> dict[str, Written]:
    """The written reasoning of the rows of a mix, by row id."""
    rows = _rows(replace(config, reasoned=True), data_dir)
    return {row.id: row.written for row in rows if row.written is not None}


def input_files(config: DataConfig, data_dir: str | Path | None = None) -> list[Path]:
    """The files a mix reads, in order, for a manifest's `inputs`."""
    if config.seeds:
        return []
    if config.folder is None:
        return [in_package("data/smoke.jsonl")]
    if data_dir is None:
        raise ConfigError(
            f"the recipe reads the data folder {config.folder!r}; give --data DIR or set GUARDREASONER_DATA"
        )
    files = [Path(data_dir) / FILE] if config.reasoned and (Path(data_dir) / FILE).exists() else []
    return files + [path for folder in _folders(config) for path in _jsonl(Path(data_dir) / folder)]


def _folders(config: DataConfig) -> tuple[str, ...]:
    return (config.folder,) if isinstance(config.folder, str) else config.folder or ()


def _jsonl(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.jsonl"))
    if not found:
        raise ConfigError(f"{folder} holds no .jsonl file; give the data folder with --data DIR")
    return found


def draw(*parts: object) -> float:
    """A pseudo-random number in [0, 1) that depends only on its arguments."""
    return _draw(*parts) / 2**64


def _draw(*parts: object) -> int:
    text = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def _rows(config: DataConfig, data_dir: str | Path | None) -> Iterator[_MixRow]:
    seen: set[str] = set()
    beside = data_dir if config.reasoned and config.folder is not None else None  # the bundled rows hold their own
    traces = read_written(beside) if beside is not None else {}
    for path in input_files(replace(config, reasoned=False), data_dir):
        for line, values in read_jsonl(path):
            try:
                row = _row(values, path.stem, line, traces if config.reasoned else None)
            except (ValueError, TypeError) as error:
                raise DataError(str(error), file=str(path), line=line) from None
            if row.id in seen:
                raise DataError("the id occurs a second time; ids are unique over all files", file=str(path), line=line)
            seen.add(row.id)
            yield row
    if unknown := sorted(traces.keys() - seen):
        raise DataError(
            f"{len(unknown)} traces are for unknown rows ({unknown[0]}, ...); name all folders in data.folder",
            file=str(Path(data_dir or "") / FILE),
        )


def _seed_rows(config: DataConfig, skipped: Counter[str]) -> Iterator[_MixRow]:
    """Rows of seed sets; those that a set's row function passes over are counted in `skipped`."""
    from guardreasoner.data.seeds import find_seed, load_seed

    for name in config.seeds:
        licence = find_seed(name).source.licence
        use = "noncommercial" if "-NC" in licence else "permissive" if licence else "unstated"
        examples, dropped = load_seed(name)
        skipped.update(dropped)
        for example in examples:
            yield _MixRow(example, use, licence or "none stated")


def _row(values: Mapping[str, Any], stem: str, line: int, traces: Mapping[str, Written] | None = None) -> _MixRow:
    """One row; `traces` = reasoning is wanted, and this is what the separate file holds."""
    prompt, response = values.get("prompt") or "", values.get("response") or None
    if not isinstance(prompt, str) or not isinstance(response, str | None):
        raise TypeError("`prompt` and `response` are texts")
    if not prompt and not response:
        raise ValueError("both `prompt` and `response` are empty")
    use = values.get("use") or "unstated"
    if use not in USES:
        raise ValueError(f"`use` is one of {', '.join(USES)}")
    gold = Labels.of({task: values.get(task.value) for task in TASKS})
    if response is None and any(TASKS[t].needs_response for t in gold.tasks):
        raise ValueError("a label of the reply without a reply")
    id_ = str(values.get("id") or f"{stem}-{line:05d}")
    source = "-".join(str(part) for part in (values.get("source") or stem, values.get("domain")) if part)
    turns = values.get("context") or []
    if not isinstance(turns, list) or not all(
        isinstance(m, Mapping) and {"role", "content"} <= m.keys() for m in turns
    ):
        raise ValueError("`context` is a list of objects with `role` and `content`")
    context = tuple(Message(str(m["role"]), str(m["content"])) for m in turns)
    made = None
    if traces is not None:
        made = written(values, values) if values.get("steps") else traces.get(id_)
    if made is not None:
        check(gold, made)
        gold = Labels.of({task: gold[task] or made.labels[task] for task in TASKS})
    example = Example(Exchange(id_, prompt, response, context, source), gold, str(values.get("category") or ""))
    return _MixRow(example, use, str(values.get("licence") or "unstated"), made)


def _check_names(config: DataConfig, sources: set[str]) -> None:
    for name in (*config.caps, *config.leave_out, *config.drop, *config.only):
        if name not in sources:
            raise UnknownName("source in this data folder", name, sources)


def _select(rows: Sequence[_MixRow], config: DataConfig, counts: MixCounts) -> tuple[list[_MixRow], list[_MixRow]]:
    """Apply licence classes, sources and caps, in an order that depends on ids only."""
    validation_use = config.use if config.validation_use is None else config.validation_use
    taken: Counter[str] = Counter()
    train: list[_MixRow] = []
    validation: list[_MixRow] = []
    for row in sorted(rows, key=lambda r: (_draw(config.seed, r.id), r.id)):
        held = row.source in config.leave_out
        cap = config.caps.get(row.source, config.leave_out_cap if held else None)
        if not row.example.gold.tasks:
            counts.drop("unlabelled")
        elif row.source in config.drop or (config.only and not held and row.source not in config.only):
            counts.drop("source")
        elif row.use not in (validation_use if held else config.use):
            counts.drop("licence")
        elif config.reasoned and not held and row.written is None:
            counts.drop("no reasoning")
        elif config.reasoned and not held and row.written and row.written.disputed:
            counts.drop("disputed")
        elif cap is not None and taken[row.source] >= cap:
            counts.drop("left_out" if held else "cap")
        elif held:
            taken[row.source] += 1
            counts.drop("validation")
            validation.append(row)
        else:
            taken[row.source] += 1
            train.append(row)
    return train, validation
