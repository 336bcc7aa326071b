"""Hard samples become weighted preferences (paper section 3.3).

A hard sample has at least one right and one wrong answer among those of one model, or of several. Of each, one pair is
made: the longest right and the longest wrong answer (code), or random ones (paper). Its weight is
alpha = 1 + Norm(wrong - right, gamma).

Reads `synthesize/traces.jsonl` and `sample/samples.jsonl`, writes `mine/preferences.jsonl`. Texts are judged as they
stream by and only marks, lengths and file positions are kept; the few texts that make pairs are read a second time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from guardreasoner.errors import ConfigError, DataError
from guardreasoner.records import from_dict, parse_line, read_lines, to_dict, write_jsonl
from guardreasoner.run_folder import Counts, RunFolder
from guardreasoner.train.pairs import (
    Gold,
    Marks,
    PickedPair,
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
    """Weights are in [1 - gamma, 1 + gamma] (`hard_sample_mining.py`: max_norm 0.2)."""
    weigh_by: Literal["source", "all"] = "source"
    """Over which pairs the difficulty is normalised: those of one data set (code), or all."""
    models: tuple[str, ...] = ()
    """Whose answers are read; empty = all models' (an ensemble); `[sft]` = self-mining."""
    seed: int = 42

    def __post_init__(self) -> None:
        if self.rule == "official" and (self.task, self.pair) != ("first", "longest"):
            raise ConfigError("mine.rule: official means pair: longest and task: first, as released")


class Row(NamedTuple):
    """A row of samples: whose answers they are, where it begins in the file, and what is kept of each."""

    model: str
    position: int
    answers: Sequence[Sampled | None]
    """None = it cannot be read."""


class Case(NamedTuple):
    """An example: where its trace begins in the file, what answers are compared with, and the rows of answers."""

    id: str
    position: int
    source: str
    gold: Gold | None
    rows: list[Row]


class FoundPair(NamedTuple):
    """A pair before its texts are read: both answers by row and place in it."""

    case: Case
    picked: PickedPair
    chosen: tuple[Row, int]
    rejected: tuple[Row, int]


Line = Callable[[int], dict[str, Any]]
"""Reads the line that begins at a byte."""


@contextmanager
def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a JSONL file by position."""
    with open(path, "rb") as stream:

        @lru_cache(2)
        def line(position: int) -> dict[str, Any]:
            stream.seek(position)
            return parse_line(stream.readline(), file=str(path), line=0)

        yield line


def read_cases(traces: Path, samples: Path, config: MineConfig) -> list[Case]:
    """One pass over each file."""
    cases: dict[str, Case] = {}
    for _, position, row in read_lines(traces):
        trace = from_dict(Trace, row)
        exchange = trace.example.exchange
        if exchange.id not in cases:
            cases[exchange.id] = Case(exchange.id, position, exchange.source, gold_of(trace, config.rule), [])
    read = marks_official if config.rule == "official" else marks_ours
    missing, same = set(config.models), dict[Marks, Marks]()  # one tuple for equal marks: there may be millions
    for _, position, row in read_lines(samples):
        model, texts = row.get("model"), row.get("texts")
        if not isinstance(model, str) or not isinstance(texts, list):
            raise DataError("not a row of samples: it lacks `model` or `texts`", file=str(samples))
        if config.models and model not in config.models:
            continue
        case = cases.get(row.get("example_id", ""))
        if case is None:
            raise DataError("samples of an example that the traces do not hold; sample again", file=str(samples))
        marks = [read(text, case.gold.words) if case.gold else None for text in texts]
        kept = [Sampled(same.setdefault(m, m), len(text)) if m else None for m, text in zip(marks, texts, strict=True)]
        case.rows.append(Row(model, position, kept))
        missing.discard(model)
    if missing:
        raise DataError(f"no samples of {', '.join(sorted(missing))}; see sample.models", file=str(samples))
    return [case for case in cases.values() if case.rows]


def find_pairs(cases: Sequence[Case], config: MineConfig, *, line: Line, counts: Counts) -> list[FoundPair]:
    """The pair of every hard example, in the order of the traces; the others are counted by reason."""
    pairs: list[FoundPair] = []
    for case in cases:
        counts.in_ += 1
        if case.gold is None:
            counts.drop("no_label_text")
            continue
        answers = [(row, place) for row in case.rows for place, kept in enumerate(row.answers) if kept]
        samples = [kept for row in case.rows for kept in row.answers if kept]
        choose = longest(samples) if config.pair == "longest" else at_random(config.seed, case.id)

        def sound(i: int, answers: list[tuple[Row, int]] = answers, tasks: tuple[Task, ...] = case.gold.tasks) -> bool:
            row, place = answers[i]
            return is_sound(line(row.position)["texts"][place], tasks)

        picked = pick_pair(
            samples, case.gold, rule=config.rule, choose=choose, hardest=config.task == "hardest", sound=sound
        )
        if isinstance(picked, str):
            counts.drop(picked)
            continue
        counts.out += 1
        pairs.append(FoundPair(case, picked, answers[picked.chosen], answers[picked.rejected]))
    return pairs


def weights_of(pairs: Sequence[FoundPair], config: MineConfig) -> list[float]:
    """alpha of each pair, normalised within its source or over all."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        groups[pair.case.source if config.weigh_by == "source" else ""].append(place)
    weights = [1.0] * len(pairs)
    for places in groups.values():
        differences = [pairs[p].picked.wrong - pairs[p].picked.right for p in places]
        for place, weight in zip(places, weigh(differences, config.gamma), strict=True):
            weights[place] = weight
    return weights


def preference(pair: FoundPair, weight: float, config: MineConfig, *, trace: Line, line: Line) -> Preference:
    """The record of a pair, its texts read by position."""
    (chosen, place), (rejected, other) = pair.chosen, pair.rejected
    row = line(chosen.position)
    return Preference(
        example_id=pair.case.id,
        task=pair.picked.task,
        prompt=to_dict(from_dict(Trace, trace(pair.case.position)).example.exchange),
        chosen=row["texts"][place],
        rejected=line(rejected.position)["texts"][other],
        wrong=pair.picked.wrong,
        right=pair.picked.right,
        weight=weight,
        provenance={
            "chosen_model": chosen.model,
            "rejected_model": rejected.model,
            "temperature": row.get("temperature"),
            "rule": config.rule,
            "pair": config.pair,
        },
    )


def run_mine(config: MineConfig, *, out: str | Path, stage: str = "mine", fresh: bool = False) -> dict[str, Any]:
    """Mine; returns the manifest.

    Args:
        stage: name of the folder to write (`mine`, or one of several ways of mining the same samples).
    """
    traces, samples = Path(out) / "synthesize" / "traces.jsonl", Path(out) / "sample" / "samples.jsonl"
    for path, earlier in ((traces, "synthesize"), (samples, "sample")):
        if not path.exists():
            raise DataError(f"not there yet; run `guardreasoner {earlier}` first", file=str(path))
    with RunFolder(out, stage, config=asdict(config), inputs=[traces, samples], fresh=fresh) as run:
        if run.manifest:
            return run.manifest
        counts = Counts()
        cases = read_cases(traces, samples, config)
        with lines_of(traces) as trace, lines_of(samples) as line:
            pairs = find_pairs(cases, config, line=line, counts=counts)
            if not pairs:
                raise DataError(_nothing(counts), file=str(samples))
            weights = weights_of(pairs, config)
            records = (preference(p, w, config, trace=trace, line=line) for p, w in zip(pairs, weights, strict=True))
            write_jsonl(run.path / "preferences.jsonl", records)
        return run.finish(counts, **_about(pairs, weights, cases))


def _nothing(counts: Counts) -> str:
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(counts.dropped.items())) or "nothing was sampled"
    return (
        f"no pair of a right and a wrong answer in {counts.in_} examples ({reasons}); raise sample.temperature or "
        "sample.k, or sample with more models"
    )


def _about(pairs: Sequence[FoundPair], weights: Sequence[float], cases: Sequence[Case]) -> dict[str, Any]:
    """Pairs by task and by who wrote them, and the range of the weights."""
    authors = Counter(f"{pair.chosen[0].model} over {pair.rejected[0].model}" for pair in pairs)
    return {
        "answers": sum(len(row.answers) for case in cases for row in case.rows),
        "by_task": dict(Counter(p.picked.task.value for p in pairs)),
        "by_models": dict(sorted(authors.items())),
        "weights": {"min": min(weights), "mean": sum(weights) / len(weights), "max": max(weights)},
    }
