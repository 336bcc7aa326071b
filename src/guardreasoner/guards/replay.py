"""A guard that answers from a file: our stored verdicts, or official `generated_predictions.jsonl`.

    guardreasoner evaluate --guard replay --model RUN_OR_FOLDER --data DIR --out RUN2

So published predictions, or a run made on another machine, can be scored, compared and reported like any other guard.
Answers are found by exchange id. Official files have none: there the folder's name is the benchmark and the line number
is the row, and each answer is given only to the request that it was stored with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from guardreasoner.data.benchmarks import BENCHMARKS, find_benchmark
from guardreasoner.data.sources import input_block
from guardreasoner.errors import ConfigError, DataError, UnknownName
from guardreasoner.formats.guardreasoner import parse
from guardreasoner.guards.base import Judging, unjudged
from guardreasoner.metrics import strict_label
from guardreasoner.records import from_dict, read_jsonl
from guardreasoner.types import TASKS, Exchange, Labels, Task, Verdict

OFFICIAL = "generated_predictions.jsonl"


@dataclass(frozen=True, slots=True)
class _StoredAnswer:
    verdict: Verdict
    prompt: str | None
    """The stored prompt of an official row; None = the id is proof enough."""


class ReplayGuard(Judging):
    """Answers from stored files; an exchange without an answer is `unavailable`."""

    def __init__(self, model: str | Path) -> None:
        """Read the answers.

        Args:
            model: a verdict file, a run folder (`RUN/verdicts/*.jsonl`), an official prediction file in a folder named
                after its benchmark, or a folder of such folders (`8B/<Benchmark>/generated_predictions.jsonl`).
        """
        if not str(model):
            raise ConfigError("guard replay needs --model FILE or FOLDER with stored verdicts or predictions")
        self.tasks: tuple[Task, ...] = tuple(TASKS)
        self._answers: dict[str, _StoredAnswer] = {}
        for path in _files(Path(model)):
            for identity, answer in _read(path):
                if identity in self._answers:
                    raise DataError(f"the row {identity} is answered twice", file=str(path))
                self._answers[identity] = answer
        names = {a.verdict.guard for a in self._answers.values() if a.verdict.guard}
        self.name = names.pop() if len(names) == 1 else f"replay-{Path(model).resolve().name.lower()}"
        tasks = {t for a in self._answers.values() for t in a.verdict.labels.tasks}
        self.tasks = tuple(t for t in TASKS if t in tasks)

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        return [self._verdict(exchange) for exchange in exchanges]

    def _verdict(self, exchange: Exchange) -> Verdict:
        answer = self._answers.get(exchange.id)
        problem = "no stored answer for this id" if answer is None else None
        if answer is not None and answer.prompt is not None:
            block = input_block(exchange.prompt, exchange.response)
            problem = None if block.strip() in answer.prompt else "the stored answer is to another request"
        if answer is None or problem is not None:
            return unjudged(Verdict(exchange.id, self.name, "full", "ok"), "unavailable", problem, "closed")
        labels = Labels.of({t: answer.verdict.labels[t] for t in exchange.tasks})
        return replace(answer.verdict, guard=self.name, labels=labels)


def _files(model: Path) -> list[Path]:
    if model.is_file():
        return [model]
    if not model.is_dir():
        raise ConfigError(f"there is nothing to replay at {model}: give a file or a folder of stored verdicts")
    found = sorted((model / "verdicts").glob("*.jsonl")) or sorted(model.glob("*.jsonl"))
    found = found or sorted(model.glob(f"*/{OFFICIAL}"))
    if not found:
        raise ConfigError(f"{model} holds neither verdicts/*.jsonl nor <Benchmark>/{OFFICIAL}")
    return found


def _read(path: Path) -> Iterator[tuple[str, _StoredAnswer]]:
    for index, (line, row) in enumerate(read_jsonl(path)):
        if "exchange_id" in row:
            try:
                verdict = from_dict(Verdict, row)
            except DataError as error:
                raise DataError(error.message, file=str(path), line=line) from None
            yield verdict.exchange_id, _StoredAnswer(verdict, None)
        elif isinstance(row.get("predict"), str) and isinstance(row.get("prompt"), str):
            identity = f"{benchmark_of(path)}:{index}"
            yield identity, _StoredAnswer(official_verdict(identity, row["predict"]), row["prompt"])
        else:
            raise DataError("neither a verdict nor an official prediction", file=str(path), line=line)


def benchmark_of(path: Path) -> str:
    """The benchmark that an official prediction file answers, by its folder."""
    try:
        return find_benchmark(path.parent.name).name
    except UnknownName:
        wanted = f"must lie in a folder named after its benchmark ({', '.join(BENCHMARKS)})"
        raise DataError(wanted, file=str(path)) from None


def official_verdict(identity: str, text: str) -> Verdict:
    """A stored text as a verdict: labels by the strict rule of scoring, the last verdict in the whole text."""
    labels = Labels.of({task: strict_label(text, task) for task in TASKS})
    parsed = parse(text)
    return Verdict(
        identity,
        guard="",
        mode="full",
        status="ok" if labels.tasks else "unparsed",
        labels=labels,
        harm=parsed.harm,
        flagged=labels.harmful or not labels.tasks,
        fail_mode=None if labels.tasks else "closed",
        steps=parsed.steps,
        text=text,
        error=None if labels.tasks else "no verdict in the stored answer",
    )
