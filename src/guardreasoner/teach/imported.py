"""Published reasoning traces into `Trace` records, and the statistics of Table 1.

`yueliu1999/GuardReasonerTrain` has four splits with the columns instruction, input, output. Answers are kept as
released, byte for byte: the reasoning is the output up to its answer block, and the block is trained unchanged. Gold
labels are the block's, for the texts that exist: if there is no reply, the teacher's "refusal" and "unharmful" stay
in the answer but are not gold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from guardreasoner.data.sources import read_input_block
from guardreasoner.errors import ConfigError, DataError, need
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.records import Appender, read_jsonl, read_records
from guardreasoner.run_folder import Counts, RunFolder
from guardreasoner.types import Example, Exchange, Labels, Task, Trace

HUB_ID = "yueliu1999/GuardReasonerTrain"
SPLITS = ("WildGuardTrainR", "AegisTrainR", "BeaverTailsTrainR", "ToxicChatTrainR")
TEACHER = "gpt-4o-2024-08-06"
"""Who wrote the published traces (`train/llm.py`)."""
VERSION = "published"

MOST_SOURCES = 8
"""More sources than that are printed as one line; the manifest has them all."""

_FORMS = {
    "official": wire_format.INSTRUCTION.strip(),
    "synthesis": "You are a classifier for analyzing interactions between humans and LLMs",
}
"""How the two instructions begin: the one of inference, and the longer one that the script saves for WildGuard rows."""
_RULE = re.compile(r"^-{3,}[ \t]*\s*\Z", re.M)


@dataclass(frozen=True, slots=True)
class Table1:
    """The paper's statistics of a training corpus."""

    samples: int
    steps: int
    steps_per_sample: float
    characters_per_step: float
    """Characters of the steps' text."""


PUBLISHED = {
    "WildGuardTrain": Table1(86_759, 323_930, 3.73, 138.35),
    "AegisTrain": Table1(10_798, 37_082, 3.43, 140.83),
    "BeaverTailsTrain": Table1(27_186, 90_553, 3.33, 114.49),
    "ToxicChatTrain": Table1(2_801, 9_094, 3.25, 143.89),
    "all": Table1(127_544, 460_659, 3.61, 133.97),
}
"""Paper, Table 1."""


def table1(traces: Iterable[Trace], tasks: Iterable[Task] = tuple(Task)) -> dict[str, Table1]:
    """Table 1 of some traces, per source and for `all`.

    Args:
        traces: those without reasoning are left out.
        tasks: the tasks whose steps count. The paper does not say which do; on the eight released rows that were at
            hand all tasks have 6.75 steps a row and Task 1 alone 2.88, against 3.61 in the paper.
    """
    counted = frozenset(tasks)
    samples: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    for trace in traces:
        if not trace.reasoning:
            continue
        texts = [s.text for s in wire_format.parse(trace.reasoning).steps if s.task in counted]
        for name in ("all", trace.example.exchange.source or "unnamed"):
            samples[name] += 1
            steps[name] += len(texts)
            characters[name] += sum(map(len, texts))
    return {
        name: Table1(n, steps[name], round(steps[name] / n, 2), round(characters[name] / max(1, steps[name]), 2))
        for name, n in sorted(samples.items())
    }


def table1_lines(traces: Iterable[Trace], published: bool = False) -> list[str]:
    """Table 1 in lines to print: all tasks and Task 1 alone, beside the paper's where that is asked for."""
    rows = list(traces)
    lines = [f"{'source':<26}{'steps of':<14}{'samples':>9}{'steps':>9}{'steps/sample':>14}{'chars/step':>12}"]
    for title, tasks in (("all tasks", tuple(Task)), ("Task 1", (Task.prompt_harm,))):
        table = table1(rows, tasks)
        lines += [_line(name, title, row) for name, row in table.items() if name == "all" or len(table) <= MOST_SOURCES]
    if published:
        lines += [_line(name, "paper", row) for name, row in PUBLISHED.items()]
        for title, tasks in (("all tasks", tuple(Task)), ("Task 1", (Task.prompt_harm,))):
            lines.append(f"counting the steps of {title}: {differences(table1(rows, tasks))}")
    return lines


def differences(made: Mapping[str, Table1]) -> str:
    """Where some traces differ from the paper's Table 1, in one line."""
    found = [
        f"{name} {key} {getattr(made[name], key) if name in made else 'absent'} against {value}"
        for name, row in PUBLISHED.items()
        for key, value in asdict(row).items()
        if name not in made or getattr(made[name], key) != value
    ]
    return "; ".join(found) or "equal to the paper"


def _line(source: str, title: str, row: Table1) -> str:
    return (
        f"{source:<26.26}{title:<14}{row.samples:>9,}{row.steps:>9,}"
        f"{row.steps_per_sample:>14.2f}{row.characters_per_step:>12.2f}"
    )


def read_row(row: Mapping[str, Any], *, id: str, source: str) -> tuple[Trace, str]:
    """One published row and the form of its instruction (`official` or `synthesis`); errors quote nothing of it."""
    instruction, text = row.get("instruction"), row.get("output")
    form = next((n for n, start in _FORMS.items() if str(instruction).lstrip().startswith(start)), None)
    if form is None:
        raise DataError("the instruction is none of the two published ones", field="instruction")
    if not isinstance(text, str) or not isinstance(row.get("input"), str):
        raise DataError("it is no text", field="output")
    prompt, response = read_input_block(row["input"])
    blocks = list(wire_format.BLOCK_LINE.finditer(text))
    labels = wire_format.parse(text).labels
    if not blocks or not labels.tasks:
        raise DataError("there is no answer block with a verdict", field="output")
    reasoning = _RULE.sub("", text[: blocks[-1].start()])
    exchange = Exchange(id, prompt, response, source=source)
    gold = Labels.of({task: labels[task] for task in exchange.tasks})
    return Trace(Example(exchange, gold), reasoning, TEACHER, VERSION, text[len(reasoning) :]), form


def published_rows(origin: str) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """Split name, index and row of a hub id, a `.jsonl` file, or a `.json` file (a list, or a list for each split)."""
    path = Path(origin)
    if path.suffix == ".jsonl":
        for line, row in read_jsonl(path):
            yield path.stem, line - 1, row
    elif path.suffix == ".json":
        yield from _json_rows(path)
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", origin) and not path.exists():
        datasets = need("datasets", "data")
        for split in SPLITS:
            try:
                data = datasets.load_dataset(origin, split=split)
            except Exception as error:  # the hub's errors have no common base
                raise DataError(
                    f"{origin} could not be loaded ({type(error).__name__}); check the network and the name, "
                    "or give a local .json or .jsonl file"
                ) from None
            for index, row in enumerate(data):
                yield split, index, row
    else:
        raise ConfigError(f"{origin!r} is neither a .json or .jsonl file nor a hub id such as {HUB_ID}")


def _json_rows(path: Path) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    import json

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=str(path)) from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise DataError("not JSON in UTF-8", file=str(path)) from None
    for split, rows in value.items() if isinstance(value, dict) else [(path.stem, value)]:
        if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
            raise DataError("a list of rows, or an object of such lists, is wanted", file=str(path))
        for index, row in enumerate(rows):
            yield split, index, row


def import_traces(origin: str, *, out: str | Path, fresh: bool = False) -> dict[str, Any]:
    """Published traces into `out/synthesize/traces.jsonl`, where training looks for them; returns the manifest.

    Rows that cannot be read go to `rejects.jsonl` with the reason; ids are `{split}:{index from 0}`, sources are named
    as the seed sets are.
    """
    inputs = [origin] if Path(origin).exists() else []
    with RunFolder(
        out, "synthesize", config={"imported": Path(origin).name if inputs else origin}, inputs=inputs, fresh=fresh
    ) as folder:
        if folder.manifest is not None:
            return folder.manifest
        for name in ("traces.jsonl", "rejects.jsonl"):
            (folder.path / name).unlink(missing_ok=True)  # an import is quick: a killed one starts over
        counts, forms, why = Counts(), Counter[str](), ""
        with Appender(folder.path / "traces.jsonl") as good, Appender(folder.path / "rejects.jsonl") as bad:
            for split, index, row in published_rows(origin):
                counts.in_ += 1
                id_ = f"{split}:{index}"
                try:
                    trace, form = read_row(row, id=id_, source=split.removesuffix("R"))
                except DataError as error:
                    counts.drop(error.field or "row")
                    why = why or f"; the first ({id_}): {error}"
                    bad.append({"id": id_, "reasons": [str(error)]})
                    continue
                counts.out += 1
                forms[form] += 1
                good.append(trace)
        if not counts.out:
            raise DataError(f"none of its {counts.in_} rows is a published trace{why}", file=origin)
        made = table1(read_records(Trace, folder.path / "traces.jsonl"))
        return folder.finish(
            counts, instructions=dict(forms), teacher=TEACHER, table1={n: asdict(row) for n, row in made.items()}
        )
