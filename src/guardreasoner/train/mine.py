"""Hard samples become weighted preferences (paper section 3.3).

A hard sample has at least one right and one wrong answer among those of one model, or of several. Of each, one pair is
made: the longest right and the longest wrong answer (code), or random ones (paper). Its weight is
alpha = 1 + Norm(wrong - right, gamma).

Reads `synthesize/traces.jsonl` and `sample/samples.jsonl`, writes `mine/preferences.jsonl`. Texts are judged as they
stream by and only marks, lengths and file positions are kept; the few texts that make pairs are read a second time.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from guardreasoner.errors import ConfigError, DataError
from guardreasoner.records import from_dict, parse_line, read_lines, to_dict, write_jsonl
from guardreasoner.run_folder import Counts, RunFolder
from guardreasoner.train.pairs import (
    Gold,
    Picked,
    Rule,
    Sampled,
    at_random,
    gold_of,
    is_sound,
    longest,
    marks_official,
    marks_ours,
    pick_pair,
    weigh,
)
from guardreasoner.types import Preference, Task, Trace


@dataclass(frozen=True)
class MineConfig:
    """How pairs are made and weighed."""

    rule: Rule = "ours"
    """official = the released miner bit for bit, as in the paper's recipes; ours = the chosen answer is right in every
    annotated task, and its reasoning does not conclude the opposite."""
    pair: Literal["longest", "random"] = "longest"
    """Which of the right and of the wrong answers: the longest (code) or one at random (paper)."""
    task: Literal["first", "hardest"] = "first"
    """Of several tasks with right and wrong answers: the first of Request, Response, Completion (code), or the one with
    most wrong answers."""
    gamma: float = 0.2
    """Weights lie in [1 - gamma, 1 + gamma] (`hard_sample_mining.py`: max_norm 0.2)."""
    weigh_by: Literal["source", "all"] = "source"
    """Over which pairs the difficulty is normalised: those of one data set (code), or all."""
    models: tuple[str, ...] = ()
    """Whose answers are read; empty = all models' (an ensemble); `[sft]` = self-mining."""
    seed: int = 42

    def __post_init__(self) -> None:
        if self.rule == "official" and (self.task, self.pair) != ("first", "longest"):
            raise ConfigError("mine.rule: official means pair: longest and task: first, as released")


@dataclass
class Scan:
    """What one pass over the samples keeps: three bytes and a length per answer, a position per row."""

    models: list[str] = field(default_factory=list)
    rows: dict[int, array[int]] = field(default_factory=dict)
    """Example number -> its row numbers."""
    offset: array[int] = field(default_factory=lambda: array("Q"))
    model: array[int] = field(default_factory=lambda: array("H"))
    first: array[int] = field(default_factory=lambda: array("Q", [0]))
    """Where each row's answers begin in `marks`."""
    marks: bytearray = field(default_factory=bytearray)
    """Four bytes per answer: readable, and the three marks."""
    length: array[int] = field(default_factory=lambda: array("I"))

    def answers(self, example: int) -> Iterator[tuple[int, int, Sampled]]:
        """(row, index in it, what is kept) of the readable answers of an example."""
        for row in self.rows.get(example, ()):
            for place, at in enumerate(range(self.first[row], self.first[row + 1])):
                if self.marks[4 * at]:
                    m = self.marks[4 * at + 1 : 4 * at + 4]
                    yield row, place, Sampled((m[0], m[1], m[2]), self.length[at])


@dataclass(frozen=True)
class Examples:
    """The examples by number: id, position of their trace, source, and what answers are compared with."""

    ids: Mapping[str, int]
    offset: array[int]
    source: list[str]
    gold: list[Gold | None]


def read_examples(path: Path, rule: Rule) -> Examples:
    """One pass over the traces."""
    ids: dict[str, int] = {}
    seen = Examples(ids, array("Q"), [], [])
    kept: dict[Gold | None, Gold | None] = {}
    names: dict[str, str] = {}
    for _, position, row in read_lines(path):
        trace = from_dict(Trace, row)
        exchange = trace.example.exchange
        if exchange.id not in ids:
            ids[exchange.id] = len(ids)
            seen.offset.append(position)
            seen.source.append(names.setdefault(exchange.source, exchange.source))
            gold = gold_of(trace, rule)
            seen.gold.append(kept.setdefault(gold, gold))
    return seen


def scan(path: Path, examples: Examples, config: MineConfig) -> Scan:
    """One pass over the samples.

    Raises:
        DataError: a row is garbled, or of an example that the traces do not hold.
    """
    read = marks_official if config.rule == "official" else marks_ours
    seen = Scan()
    numbers: dict[str, int] = {}
    for _, position, row in read_lines(path):
        name, texts = row.get("model"), row.get("texts")
        if not isinstance(name, str) or not isinstance(texts, list):
            raise DataError("not a row of samples: it lacks `model` or `texts`", file=str(path))
        if config.models and name not in config.models:
            continue
        number = examples.ids.get(row.get("example_id", ""))
        if number is None:
            raise DataError("samples of an example that the traces do not hold; sample again", file=str(path))
        seen.rows.setdefault(number, array("I")).append(len(seen.offset))
        seen.offset.append(position)
        if name not in numbers:
            numbers[name] = len(numbers)
            seen.models.append(name)
        seen.model.append(numbers[name])
        gold = examples.gold[number]
        for text in texts:
            marks = read(text, gold.words) if gold else None
            seen.marks += bytes((1, *marks)) if marks else b"\0\0\0\0"
            seen.length.append(len(text))
        seen.first.append(len(seen.length))
    return seen


class Texts:
    """Answers read by position; use as a context manager."""

    def __init__(self, path: Path, seen: Scan) -> None:
        self._stream, self._seen = open(path, "rb"), seen  # noqa: SIM115 - closed by __exit__
        self._kept: tuple[int, dict[str, Any]] = (-1, {})

    def row(self, number: int) -> dict[str, Any]:
        """A row of samples."""
        if self._kept[0] != number:
            self._stream.seek(self._seen.offset[number])
            self._kept = (number, parse_line(self._stream.readline(), file=self._stream.name, line=0))
        return self._kept[1]

    def text(self, row: int, place: int) -> str:
        """One answer."""
        return str(self.row(row)["texts"][place])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


class Found(NamedTuple):
    """A pair before its texts are read: (row, place) of both answers."""

    example: int
    picked: Picked
    chosen: tuple[int, int]
    rejected: tuple[int, int]


def find_pairs(examples: Examples, seen: Scan, config: MineConfig, *, texts: Texts, counts: Counts) -> list[Found]:
    """The pair of every hard example, in the order of the traces; the others are counted by reason."""
    pairs: list[Found] = []
    for name, number in examples.ids.items():
        if number not in seen.rows:
            continue
        counts.in_ += 1
        gold = examples.gold[number]
        if gold is None:
            counts.drop("no_label_text")
            continue
        answers = list(seen.answers(number))
        samples = [a[2] for a in answers]
        choose = longest(samples) if config.pair == "longest" else at_random(config.seed, name)

        def sound(i: int, answers: list[Any] = answers, tasks: tuple[Task, ...] = gold.tasks) -> bool:
            return is_sound(texts.text(*answers[i][:2]), tasks)

        picked = pick_pair(
            samples, gold, rule=config.rule, choose=choose, hardest=config.task == "hardest", sound=sound
        )
        if isinstance(picked, str):
            counts.drop(picked)
            continue
        counts.out += 1
        chosen, rejected = answers[picked.chosen], answers[picked.rejected]
        pairs.append(Found(number, picked, chosen[:2], rejected[:2]))
    return pairs


def weights_of(pairs: Sequence[Found], examples: Examples, config: MineConfig) -> list[float]:
    """alpha of each pair, normalised within its source or over all."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        groups[examples.source[pair.example] if config.weigh_by == "source" else ""].append(place)
    weights = [1.0] * len(pairs)
    for places in groups.values():
        differences = [pairs[p].picked.wrong - pairs[p].picked.right for p in places]
        for place, weight in zip(places, weigh(differences, config.gamma), strict=True):
            weights[place] = weight
    return weights


def preferences(
    pairs: Sequence[Found], weights: Sequence[float], *, traces: Path, texts: Texts, examples: Examples,
    config: MineConfig,
) -> Iterator[Preference]:  # fmt: skip
    """The records, their texts read by position."""
    ids = list(examples.ids)
    with open(traces, "rb") as stream:
        for pair, weight in zip(pairs, weights, strict=True):
            stream.seek(examples.offset[pair.example])
            line = parse_line(stream.readline(), file=str(traces), line=0)
            exchange = from_dict(Trace, line).example.exchange
            chosen, rejected = texts.row(pair.chosen[0]), texts.row(pair.rejected[0])
            yield Preference(
                example_id=ids[pair.example],
                task=pair.picked.task,
                prompt=to_dict(exchange),
                chosen=chosen["texts"][pair.chosen[1]],
                rejected=rejected["texts"][pair.rejected[1]],
                wrong=pair.picked.wrong,
                right=pair.picked.right,
                weight=weight,
                provenance={
                    "chosen_model": chosen["model"],
                    "rejected_model": rejected["model"],
                    "temperature": chosen.get("temperature"),
                    "rule": config.rule,
                    "pair": config.pair,
                },
            )


def run_mine(config: MineConfig, *, out: str | Path, stage: str = "mine", fresh: bool = False) -> dict[str, Any]:
    """Mine; returns the manifest.

    Args:
        config: what to do.
        out: the run's folder.
        stage: name of the folder to write (`mine`, or one of several ways of mining the same samples).
        fresh: start over.

    Raises:
        DataError: there are no samples, or no pair can be made of them; the counts are named.
    """
    traces, samples = Path(out) / "synthesize" / "traces.jsonl", Path(out) / "sample" / "samples.jsonl"
    for path, earlier in ((traces, "synthesize"), (samples, "sample")):
        if not path.exists():
            raise DataError(f"not there yet; run `guardreasoner {earlier}` first", file=str(path))
    with RunFolder(out, stage, config=asdict(config), inputs=[traces, samples], fresh=fresh) as run:
        if run.manifest:
            return run.manifest
        counts = Counts()
        examples = read_examples(traces, config.rule)
        seen = scan(samples, examples, config)
        missing = sorted(set(config.models) - set(seen.models))
        if missing:
            raise DataError(f"no samples of {', '.join(missing)}; see sample.models", file=str(samples))
        with Texts(samples, seen) as texts:
            pairs = find_pairs(examples, seen, config, texts=texts, counts=counts)
            if not pairs:
                raise DataError(_nothing(counts), file=str(samples))
            weights = weights_of(pairs, examples, config)
            records = preferences(pairs, weights, traces=traces, texts=texts, examples=examples, config=config)
            write_jsonl(run.path / "preferences.jsonl", records)
        return run.finish(counts, **_about(pairs, weights, seen))


def _nothing(counts: Counts) -> str:
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(counts.dropped.items())) or "nothing was sampled"
    return (
        f"no pair of a right and a wrong answer in {counts.in_} examples ({reasons}); raise sample.temperature or "
        "sample.k, or sample with more models"
    )


def _about(pairs: Sequence[Found], weights: Sequence[float], seen: Scan) -> dict[str, Any]:
    """Pairs by task and by who wrote them, and the range of the weights."""

    def who(pair: Found) -> str:
        chosen, rejected = (seen.models[seen.model[row]] for row, _ in (pair.chosen, pair.rejected))
        return f"{chosen} over {rejected}"

    return {
        "answers": len(seen.length),
        "by_task": dict(Counter(p.picked.task.value for p in pairs)),
        "by_models": dict(sorted(Counter(map(who, pairs)).items())),
        "weights": {"min": min(weights), "mean": sum(weights) / len(weights), "max": max(weights)},
    }
