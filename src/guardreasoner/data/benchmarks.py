"""The paper's benchmarks: 11 sources, 13 (source, task) cells (paper Table 8; official `data/benchmark`).

Filters and label rules follow the paper's harness, safety-eval (`evaluation/tasks/classification/*`). One row of
`BENCHMARKS` says everything about a benchmark; its row function turns an upstream row into an `Example`, or says why
not. Row ids are `{Benchmark}:{index from 0}`, because contents repeat (SafeRLHF has 28 pairs under both labels).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guardreasoner.data.everyday import EVERYDAY, shipped
from guardreasoner.data.labelled import Column, read_examples
from guardreasoner.data.sources import SkippedRow, Source, example_of, harm, is_safe, load_rows, read_input_block, take
from guardreasoner.data.tables import read_table, stem_of, strict, suffix_of
from guardreasoner.errors import ConfigError, DataError, UnknownName
from guardreasoner.metrics import find_labels
from guardreasoner.types import TASKS, Example, Exchange, Labels, Task

Row = Mapping[str, Any]
P, F, R = Task.prompt_harm, Task.refusal, Task.response_harm


@dataclass(frozen=True, slots=True)
class Cell:
    """One (benchmark, task) column of the paper's tables."""

    task: Task
    paper_n: int
    """The count that paper Table 8 prints; it is the weight of the paper's averages."""
    n: int | None
    """Annotated rows that are really there; None = not known here (gated)."""
    positives: int | None
    """Of those, harmful or refusal."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark source and what is asked of it."""

    name: str
    file: str
    """Its name among the official files (`<data>/benchmarks/`)."""
    source: Source
    row: Callable[[Row], Example | SkippedRow]
    cells: tuple[Cell, ...]
    flatten: Callable[[Iterable[Row]], Sequence[Row]] = list
    """What to do with the upstream rows before `row` sees them."""


def toxic_chat(row: Row) -> Example | SkippedRow:
    """Human-annotated rows; `toxicity` decides, `jailbreaking` does not."""
    if str(row["human_annotation"]).lower() not in ("true", "1"):
        return SkippedRow("no human annotation")
    kind = "adversarial" if int(row.get("jailbreaking") or 0) else "vanilla"
    return example_of(row["user_input"], prompt_harm=harm(int(row["toxicity"]) == 1), category=kind)


_MODERATION = ("S", "H", "V", "HR", "SH", "S3", "H2", "V2")


def openai_moderation(row: Row) -> Example | SkippedRow:
    """Harmful iff any of the eight categories is 1; absent or null is not harmful."""
    hits = [c for c in _MODERATION if row.get(c) == 1]
    return example_of(row["prompt"], prompt_harm=harm(bool(hits)), category=",".join(hits))


def aegis_test(row: Row) -> Example | SkippedRow:
    """User messages; harmful unless at least two of three annotators say `Safe` ("Needs Caution" is unsafe)."""
    if row["text_type"] != "user_message":
        return SkippedRow("not a user message")
    safe = sum(row[f"labels_{i}"] == "Safe" for i in range(3))
    return example_of(str(row["text"]).strip(), prompt_harm=harm(safe <= 1))


def simple_safety_tests(row: Row) -> Example | SkippedRow:
    """All harmful."""
    return example_of(row["prompt"], prompt_harm="harmful", category=str(row.get("harm_area") or ""))


def harmbench_prompt(row: Row) -> Example | SkippedRow:
    """Standard and copyright behaviours, all harmful; contextual ones are left out."""
    kind = str(row["FunctionalCategory"])
    if kind not in ("standard", "copyright"):
        return SkippedRow(f"{kind} behaviour")
    return example_of(row["Behavior"], prompt_harm="harmful", category=kind)


def wildguard_test(row: Row) -> Example | SkippedRow:
    """Three labels, each of which may be null."""
    words = {k: row.get(c) for k, c in (("prompt_harm", "prompt_harm_label"), ("refusal", "response_refusal_label"),
                                        ("response_harm", "response_harm_label"))}  # fmt: skip
    labels = {k: None if w in (None, "None", "") else str(w) for k, w in words.items()}
    if not any(labels.values()):
        return SkippedRow("no label")
    kind = "adversarial" if row.get("adversarial") else "vanilla"
    return example_of(row["prompt"], row.get("response"), kind, **labels)


def harmbench_response(row: Row) -> Example | SkippedRow:
    """Harmful iff at least two of three annotators say so."""
    votes = sum(int(row[f"human_{i}"]) for i in range(3))
    kind = "vanilla" if row.get("experiment") == "default" else "adversarial"
    return example_of(row["test_case"], row["generation"], kind, response_harm=harm(votes > 1))


def safe_rlhf_rows(rows: Iterable[Row]) -> list[Row]:
    """1,000 pairs with exactly one safe reply (seed 42): first their safe replies, then their harmful ones."""
    safe: list[Row] = []
    harmful: list[Row] = []
    for row in rows:
        if bool(row["is_response_0_safe"]) == bool(row["is_response_1_safe"]):
            continue
        for i in (0, 1):
            is_safe = bool(row[f"is_response_{i}_safe"])
            reply = {"prompt": row["prompt"], "response": row[f"response_{i}"], "is_safe": is_safe}
            (safe if is_safe else harmful).append(reply)
    if len(safe) < 1000:
        raise DataError(f"SafeRLHF: {len(safe)} pairs with exactly one safe reply, 1000 are wanted")
    picked = random.Random(42).sample(range(len(safe)), 1000)
    return [safe[i] for i in picked] + [harmful[i] for i in picked]


def xstest_harmful(row: Row) -> Example | SkippedRow:
    """The label as given."""
    return example_of(row["prompt"], row["response"], str(row.get("prompt_type") or ""), response_harm=row["label"])


def xstest_refusal(row: Row) -> Example | SkippedRow:
    """The label as given."""
    return example_of(row["prompt"], row["response"], str(row.get("prompt_type") or ""), refusal=row["label"])


_SAFETY_EVAL = "https://raw.githubusercontent.com/allenai/safety-eval/main/evaluation/tasks/classification"
_MODERATION_COMMIT = "d3938df6ce8b06c2907f92c6084d8192da61b9aa"
_XSTEST = {"repo": "allenai/xstest-response", "gated": True, "licence": "ODC-BY-1.0"}

BENCHMARKS: dict[str, Benchmark] = {
    b.name: b
    for b in (
        Benchmark("ToxicChat", "0_8_toxic_chat.json",
                  Source("lmsys/toxic-chat", "test", "toxicchat0124", licence="CC-BY-NC-4.0",
                         note="commit unknown to us; content checked by fingerprint"),
                  toxic_chat, (Cell(P, 2853, 2853, 362),)),
        Benchmark("OpenAIModeration", "0_2_OpenAIModeration.json",
                  Source("openai/moderation-api-release", revision=_MODERATION_COMMIT, licence="MIT",
                         url=f"https://raw.githubusercontent.com/openai/moderation-api-release/{_MODERATION_COMMIT}"
                             "/data/samples-1680.jsonl.gz"),
                  openai_moderation, (Cell(P, 1680, 1680, 522),)),
        Benchmark("AegisSafetyTest", "0_1_AegisSafetyTest.json",
                  Source("nvidia/Aegis-AI-Content-Safety-Dataset-1.0", "test", licence="CC-BY-4.0",
                         note="commit unknown to us; content checked by fingerprint"),
                  aegis_test, (Cell(P, 359, 359, 232),)),
        Benchmark("SimpleSafetyTests", "0_0_SimpleSafetyTests.json",
                  Source("Bertievidgen/SimpleSafetyTests", "test",
                         revision="8187ed7ecec4540322fdb786bf66de0fcd9f6691", licence="CC-BY-2.0"),
                  simple_safety_tests, (Cell(P, 100, 100, 100),)),
        Benchmark("HarmBenchPrompt", "0_3_harmbench_prompt.json",
                  Source("allenai/safety-eval", url=f"{_SAFETY_EVAL}/harmbench/harmbench_behaviors_text_test.csv",
                         licence="MIT", note="not pinned; content checked by fingerprint"),
                  harmbench_prompt, (Cell(P, 239, 239, 239),)),
        Benchmark("WildGuardTest", "0_4_wild_guard_test.json",
                  Source("allenai/wildguardmix", "test", "wildguardtest", gated=True, licence="ODC-BY-1.0",
                         note="1,725 rows on the hub, fewer than the paper's counts; commit unknown to us"),
                  wildguard_test, (Cell(P, 1756, None, None), Cell(F, 1777, None, None), Cell(R, 1768, None, None))),
        Benchmark("HarmBenchResponse", "0_5_harmbench_response.json",
                  Source("allenai/safety-eval", url=f"{_SAFETY_EVAL}/harmbench/harmbench_text_behaviors_val_set.json",
                         licence="MIT", note="not pinned; content checked by fingerprint"),
                  harmbench_response, (Cell(R, 602, 602, 273),)),
        Benchmark("SafeRLHF", "0_9_safe_rlhf.json",
                  Source("PKU-Alignment/PKU-SafeRLHF", "test", revision="v0", licence="CC-BY-NC-4.0",
                         note="2,000 rows over 549 prompts; 28 pairs occur under both labels"),
                  is_safe, (Cell(R, 2000, 2000, 1000),), safe_rlhf_rows),
        Benchmark("BeaverTails", "0_A_beaver_tails.json",
                  Source("PKU-Alignment/BeaverTails", "30k_test",
                         revision="8401fe609d288129cc684a9b3be6a93e41cfe678", licence="CC-BY-NC-4.0"),
                  is_safe, (Cell(R, 3021, 3021, 1733),)),
        Benchmark("XSTestResponseHarmful", "0_6_xstest_response_harmful.json",
                  Source(**_XSTEST, split="response_harmfulness"),  # type: ignore[arg-type]
                  xstest_harmful, (Cell(R, 446, 446, 78),)),
        Benchmark("XSTestResponseRefusal", "0_7_xstest_response_refusal.json",
                  Source(**_XSTEST, split="response_refusal",  # type: ignore[arg-type]
                         note="the paper prints 499 rows and weights by it; there are 449"),
                  xstest_refusal, (Cell(F, 499, 449, 178),)),
    )
}  # fmt: skip
"""The paper's benchmarks, in the order of its tables."""

_MISSPELT = {"xstestreponseharmful": "XSTestResponseHarmful"}


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by name, whatever the case; the official misspelling `XSTestReponseHarmful` is accepted."""
    by_name = {n.lower(): b for n, b in BENCHMARKS.items()}
    lower = _MISSPELT.get(name.lower(), name).lower()
    if lower not in by_name:
        raise UnknownName("benchmark", name, (*BENCHMARKS, EVERYDAY))
    return by_name[lower]


def is_file(name: str) -> bool:
    """Whether a benchmark is a labelled table (`everyday`, or a file of the user's own) rather than a name of ours."""
    return name.lower() == EVERYDAY or bool(suffix_of(name)) or "/" in name or Path(name).is_file()


def title(name: str) -> str:
    """The name under which results of a benchmark are kept: the table's spelling, or the file's stem."""
    return stem_of(shipped(name)) if is_file(name) else find_benchmark(name).name


def data_folder(given: str | Path | None = None) -> Path | None:
    """The folder that holds `benchmarks/` and `train/`: as given, or by `GUARDREASONER_DATA`; None = the hub."""
    named = given or os.environ.get("GUARDREASONER_DATA")
    if not named:
        return None
    if not Path(named).is_dir():
        raise ConfigError(
            f"there is no data folder {named}; it is one that holds benchmarks/0_*.json (`guardreasoner benchmarks` "
            f"says where these come from){'' if given else '; mend GUARDREASONER_DATA, which names it, or unset it'}"
        )
    return Path(named)


def local_file(name: str, data_dir: str | Path | None = None) -> Path | None:
    """The official file of a benchmark under the data folder, if it is there."""
    folder = data_folder(data_dir)
    path = folder / "benchmarks" / find_benchmark(name).file if folder else None
    return path if path and path.exists() else None


def load_benchmark(
    name: str, data_dir: str | Path | None = None, *, mapping: Mapping[str, Column] | None = None
) -> list[Example]:
    """The examples of one benchmark, in its own order.

    Args:
        name: a name of the table, `everyday`, or a table of the user's own (`data.tables`).
        data_dir: folder with `benchmarks/0_*.json` (the official files); without it, and without
            `GUARDREASONER_DATA`, the rows come from the hub.
    """
    if is_file(name):
        return read_examples(shipped(name), None if name.lower() == EVERYDAY else mapping)
    benchmark = find_benchmark(name)
    if (folder := data_folder(data_dir)) is not None:
        path = folder / "benchmarks" / benchmark.file
        if not path.exists():
            at = f"accept its terms at {benchmark.source.page} and put" if benchmark.source.gated else "put"
            raise DataError(f"{benchmark.name} is not there; {at} the official {path.name} into {path.parent}")
        return read_official(benchmark, path)
    rows = benchmark.flatten(load_rows(benchmark.source, benchmark.name))
    taken = take(benchmark.row, rows, benchmark.name)
    return _numbered(benchmark, [t for t in taken if isinstance(t, Example)])


def load_benchmarks(
    names: Sequence[str], data_dir: str | Path | None = None, *, mapping: Mapping[str, Column] | None = None
) -> dict[str, list[Example]]:
    """Title -> the examples, of several benchmarks; the mapping is for tables of the user's own.

    Raises:
        ConfigError: two of them have one title.
    """
    loaded: dict[str, list[Example]] = {}
    for name in dict.fromkeys(names):
        if title(name) in loaded:
            raise ConfigError(f"two benchmarks are called {title(name)}; rename one file")
        loaded[title(name)] = load_benchmark(name, data_dir, mapping=mapping if is_file(name) else None)
    return loaded


def read_official(benchmark: Benchmark, path: str | Path) -> list[Example]:
    """The examples of one official file: `{instruction, input, output}` rows, or upstream columns (WildGuardTest)."""
    rows = [row for _, row in strict(read_table(path))]
    if rows and all("prompt_harm_label" in row for row in rows):
        taken = take(benchmark.row, rows, str(path))
        return _numbered(benchmark, [t for t in taken if isinstance(t, Example)])
    examples = []
    for number, row in enumerate(rows):
        if not isinstance(row.get("input"), str) or not isinstance(row.get("output"), str):
            raise DataError(f"row {number} has no `input` and `output`", file=str(path))
        try:
            prompt, response = read_input_block(row["input"])
            gold = read_gold(row["output"], benchmark)
        except DataError as error:
            raise DataError(f"row {number}: {error.message}", file=str(path), field=error.field) from None
        examples.append(Example(Exchange("", prompt, response), gold))
    return _numbered(benchmark, examples)


def read_gold(output: str, benchmark: Benchmark) -> Labels:
    """The labels that an official `output` (or `label`) holds."""
    tasks = [cell.task for cell in benchmark.cells]
    found = found_labels(output, tasks)
    if not found:
        wanted = " or ".join(f"{TASKS[t].positive}/{TASKS[t].negative}" for t in tasks)
        raise DataError(f"no label of {benchmark.name} ({wanted})", field="output")
    return Labels.of(found)


def found_labels(output: str, tasks: Sequence[Task]) -> dict[Task, str]:
    """The labels in an official text: one bare word where one task is asked, or an answer block."""
    if len(tasks) == 1 and output in (TASKS[tasks[0]].positive, TASKS[tasks[0]].negative):
        return {tasks[0]: output}
    return {task: words[0].lower() for task in tasks if (words := find_labels(output, task))}


def _numbered(benchmark: Benchmark, examples: Sequence[Example]) -> list[Example]:
    return [
        replace(e, exchange=replace(e.exchange, id=f"{benchmark.name}:{i}", source=benchmark.name))
        for i, e in enumerate(examples)
    ]
