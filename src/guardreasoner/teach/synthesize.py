"""Synthesis: a teacher writes reasoning for labelled examples (paper section 3.1).

Writes `DIR/synthesize/traces.jsonl` (`Trace`), `validation.jsonl` (`Example`), `rejects.jsonl` (why an example has no
trace) and, for a teacher that is asked over a wire, `answers.jsonl`: every answer that ever reached us, so that a run
that was killed makes no such call again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track

from guardreasoner.data.mix import DataConfig, draw, input_files, load_mix
from guardreasoner.errors import ConfigError, UnknownName, printable
from guardreasoner.records import Appender, Counts, RunFolder, dumps, read_nouns, write_jsonl
from guardreasoner.teach import template
from guardreasoner.teach.imported import table1
from guardreasoner.teach.question import Reject, Unlabelled
from guardreasoner.types import Example, Trace

if TYPE_CHECKING:
    from guardreasoner.teach.teachers import Teacher

TEACHERS = ("template", "openai", "anthropic", "openai-batch", "vllm", "hf", "onnx")
LABELS_ONLY = "none"
"""The `teacher` of traces without reasoning."""
RESUMABLE = (
    "base_url", "concurrency", "key", "max_cost", "poll_s", "price_in", "price_out", "requests_per_minute", "timeout_s",
    "tokens_per_minute",
)  # fmt: skip
"""Settings that may change between a run and its resumption."""


@dataclass(frozen=True)
class SynthesizeConfig:
    """Who teaches, and how much that may cost."""

    teacher: str = "template"
    """`template` (no language model: not reasoning synthesis), `openai` (any OpenAI-compatible server), `anthropic`,
    `openai-batch`, or a local engine: `vllm`, `hf`, `onnx`."""
    model: str = "gpt-4o-2024-08-06"
    """The teacher's model (`train/llm.py`)."""
    base_url: str | None = None
    """Where the server listens; None = the provider's own."""
    key: str | None = None
    """Name of the environment variable that holds the key; None = the provider's usual one."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every request; null takes one away (`{max_tokens: null, max_completion_tokens: 4096}`)."""
    temperature: float = 0.0
    """`train/llm.py`."""
    max_tokens: int = 2048
    """Most tokens of an answer."""
    attempts: int = 3
    """Most answers per example: the first, and re-asks that say what was wrong (released script: 1, unchecked)."""
    unlabelled: Unlabelled = "teacher"
    """Answers that the data do not give: left to the teacher (paper: BeaverTails), or `skip`ped."""
    share: float = 1.0
    """Share of the examples that get reasoning; the others are kept with their labels only."""
    concurrency: int = 64
    """Most calls in flight."""
    requests_per_minute: float | None = None
    """None = learned from the server's headers."""
    tokens_per_minute: float | None = None
    """None = learned from the server's headers."""
    timeout_s: float = 120.0
    """Seconds one call may take."""
    price_in: float | None = None
    """Dollars per million prompt tokens; None = the list price, where it is known."""
    price_out: float | None = None
    """Dollars per million answer tokens."""
    max_cost: float | None = None
    """Dollars that are never exceeded: the worst case of every call is set aside before it is made."""
    poll_s: float = 30.0
    """Seconds between looks at a batch."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.teacher not in TEACHERS:
            raise UnknownName("teacher", self.teacher, TEACHERS)
        if not 0 <= self.share <= 1:
            raise ConfigError("synthesize.share is a share: give a number from 0 to 1")
        for name in ("attempts", "concurrency", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"synthesize.{name} must be at least 1")
        if self.key is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]*", self.key):
            raise ConfigError(
                "synthesize.key is the NAME of an environment variable (OPENAI_API_KEY), never the key itself"
            )
        if self.base_url is not None:
            plain_url(self.base_url)
        for name in self.options:
            if re.search(r"key|secret|auth|password|header", name, re.I):
                raise ConfigError(f"synthesize.options.{printable(name)}: secrets belong in the environment, not here")


@dataclass
class Desk:
    """The files of a run and what is already in them."""

    traces: Appender
    rejects: Appender
    counts: Counts
    done: set[str]
    """Ids with a trace or a reject."""

    def settle(self, result: Trace | Reject) -> None:
        """Write down what became of an example."""
        if isinstance(result, Trace):
            self.done.add(result.example.exchange.id)
            self.traces.append(result)
        else:
            self.done.add(result.id)
            self.rejects.append(result)


def synthesize(
    data: DataConfig | Sequence[Example],
    config: SynthesizeConfig,
    *,
    out: str | Path,
    data_dir: str | Path | None = None,
    teacher: Teacher | None = None,
    fresh: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write traces for a data mix or for given examples; returns the manifest. The same call again resumes.

    Args:
        data: the recipe's data section, or examples of your own.
        config: the recipe's synthesize section.
        out: the run; files go to `out/synthesize`.
        data_dir: the data folder that `data` names files in.
        teacher: a teacher of your own instead of the one that `config` names.
        fresh: start over.
        quiet: no progress on stderr.

    Raises:
        ConfigError: a setting is wrong, a key is missing, or the cost cap was reached (run again with a higher one).
        EngineError: the teacher's server refuses the key, or does not answer any more.
        RunFolderError: the folder is in use or belongs to another configuration.
    """
    described = asdict(data) if isinstance(data, DataConfig) else {"examples": len(data), "digest": _digest(data)}
    inputs = input_files(data, data_dir) if isinstance(data, DataConfig) else []
    settings = {"data": described, **asdict(config)}
    with RunFolder(out, "synthesize", config=settings, inputs=inputs, fresh=fresh, resumable_keys=RESUMABLE) as folder:
        if folder.manifest is not None:
            return folder.manifest
        if isinstance(data, DataConfig):
            counts: Counts
            train, validation, counts = load_mix(data, data_dir)
            write_jsonl(folder.path / "validation.jsonl", validation)
        else:
            train, counts = unique(data), Counts(in_=len(data))
        more = _write(train, config, folder, teacher=teacher, quiet=quiet)
        return _finish(folder, train, counts, config, more)


def unique(examples: Sequence[Example]) -> list[Example]:
    """The examples as a list, if every id is there once.

    Raises:
        ConfigError: an id occurs twice.
    """
    if len({e.exchange.id for e in examples}) != len(examples):
        raise ConfigError("two examples have the same id; ids must be unique, a run resumes by them")
    return list(examples)


def _digest(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(dumps(example).encode() + b"\n")
    return digest.hexdigest()


def plain_url(base_url: str) -> str:
    """A server's address without anything secret in it.

    Raises:
        ConfigError: it is no http address, or carries a user name, a password or a query.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("synthesize.base_url must be an http or https address")
    if parts.username or parts.password or parts.query:
        raise ConfigError("synthesize.base_url must carry no user name, password or query: keys go in the environment")
    return base_url.rstrip("/")


def _write(
    train: Sequence[Example], config: SynthesizeConfig, folder: RunFolder, *, teacher: Teacher | None, quiet: bool
) -> dict[str, Any]:
    with Appender(folder.path / "traces.jsonl") as traces, Appender(folder.path / "rejects.jsonl") as rejects:
        done = {row["example"]["exchange"]["id"] for row in traces.existing} | {row["id"] for row in rejects.existing}
        desk = Desk(traces, rejects, Counts(), done)
        taught = []
        for example in train:
            if draw(config.seed, "share", example.exchange.id) < config.share:
                taught.append(example)
            elif example.exchange.id not in done:
                desk.settle(Trace(example, "", LABELS_ONLY, template.VERSION))
        if config.teacher == "template" and teacher is None:
            lexicon = template.fit_lexicon(train)
            for example in track(taught, "synthesize", console=Console(stderr=True), disable=quiet):
                if example.exchange.id not in done:
                    desk.settle(Trace(example, template.write_trace(example, lexicon), "template", template.VERSION))
            return {}
        from guardreasoner.teach.ask import teach

        return _run(teach(taught, config, desk, folder=folder.path, teacher=teacher, quiet=quiet))


def _run(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """Run to the end, also where an event loop is running already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def _finish(
    folder: RunFolder, train: Sequence[Example], counts: Counts, config: SynthesizeConfig, more: Mapping[str, Any]
) -> dict[str, Any]:
    """Put the traces in the order of the examples, count, and write the manifest."""
    order = {example.exchange.id: number for number, example in enumerate(train)}
    path = folder.path / "traces.jsonl"
    traces = sorted(read_nouns(Trace, path), key=lambda t: order[t.example.exchange.id])
    write_jsonl(path, traces)
    rejects = sorted(read_nouns(Reject, folder.path / "rejects.jsonl"), key=lambda r: order[r.id])
    write_jsonl(folder.path / "rejects.jsonl", rejects)
    counts.out = len(traces)
    for reject in rejects:
        counts.drop(f"rejected: {reject.reasons[0]}")
    if not traces:
        raise ConfigError(
            f"the teacher gave no usable trace for {len(train)} examples; see {folder.path}/rejects.jsonl"
        )
    statistics = {name: asdict(row) for name, row in table1(traces).items()}
    reasoned = sum(1 for t in traces if t.reasoning)
    return folder.finish(counts, table1=statistics, reasoned=reasoned, labels_only=len(traces) - reasoned, **more)


def estimate(data: DataConfig, config: SynthesizeConfig, *, data_dir: str | Path | None = None) -> str:
    """What a run would take, in a sentence; everything that can be wrong before the first call is found.

    Raises:
        ConfigError: as `synthesize`.
    """
    train, validation, _ = load_mix(data, data_dir)
    taught = [e for e in train if draw(config.seed, "share", e.exchange.id) < config.share]
    rows = f"{len(train):,} training rows, {len(validation):,} validation rows"
    if config.teacher == "template":
        return f"{rows}; the template teacher writes {len(taught):,} traces, at no cost"
    from guardreasoner.teach.cost import forecast_line

    return f"{rows}; {forecast_line(taught, config)}"
