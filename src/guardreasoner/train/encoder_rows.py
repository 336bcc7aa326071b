"""What nano is trained on: labelled rows, and the labels that each row gets.

A label is 1, 0, or None where nobody said. A row carries the three tasks, the kind of harm, and whether its text tries
to steer a model (`attack`). Sources that annotate one task take the others from reasoning traces, if there are any;
labels that a trace disputes are left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guardreasoner.data.harm_kinds import kind_of
from guardreasoner.records import read_jsonl
from guardreasoner.train.encoder_settings import EncoderData
from guardreasoner.types import TASKS, Task
from guardreasoner.yaml_files import packaged

Label = float | None


@dataclass(frozen=True, slots=True)
class EncoderRow:
    """One text as nano sees it, with what is known about it."""

    prompt: str
    response: str | None
    labels: tuple[Label, Label, Label]
    """prompt_harm, refusal, response_harm."""
    kind: str | None = None
    attack: Label = None
    source: str = ""
    licence: str = "Apache-2.0"
    """As stated upstream; of a joined row, its main part's."""

    @property
    def harmful(self) -> bool:
        """Whether request or reply is harmful."""
        return 1.0 in (self.labels[0], self.labels[2])


_FILE = packaged("train/encoder_rows.yaml")
STEERS, MAYBE_STEERS = (re.compile("|".join(_FILE[name]), re.IGNORECASE) for name in ("steers", "maybe_steers"))
ATTACKS, PERHAPS_ATTACKS, HATEFUL, KINDS = (_FILE[n] for n in ("attacks", "perhaps_attacks", "hateful", "kinds"))


def read_traces(path: Path) -> dict[str, dict[str, Any]]:
    """Reasoning traces by the id of their row; none where the file is not there."""
    return {values["id"]: values for _, values in read_jsonl(path)} if path.exists() else {}


def label_of(task: Task, value: str | None) -> Label:
    """1 = the positive label, 0 = the other, None = not annotated."""
    return None if value is None else float(value == TASKS[task].positive)


def context_text(context: Iterable[Mapping[str, str]]) -> str:
    """Earlier messages as nano reads them, before the request."""
    return "".join(f"[{m['role']}] {m['content']}\n" for m in context)


def everyday_rows(values: Mapping[str, Any]) -> list[EncoderRow]:
    """An everyday exchange as it comes, and its request alone."""
    steps = " ".join(values["steps"].get("prompt_harm", ()))
    steering = STEERS.search(steps)
    attack = 1.0 if steering else None if MAYBE_STEERS.search(steps + values["prompt"]) else 0.0
    labels = _three(label_of(t, values[t.value]) for t in TASKS)
    kind = kind_of(values["category"])
    text = context_text(values["context"]) + values["prompt"]
    whole = EncoderRow(text, values["response"], labels, kind, attack, "everyday")
    return [_request(whole)] if values["response"] is None else [_request(whole), whole]


def contrast_rows(values: Mapping[str, Any]) -> list[EncoderRow]:
    """A row of `data/contrasts.jsonl`, and where it has a reply and its request a label the request alone."""
    labels = _three(label_of(t, values.get(t.value)) for t in TASKS)
    whole = EncoderRow(values["prompt"], values.get("response"), labels, values.get("category"), 0.0, "contrasts")
    request = [] if labels[0] is None else [_request(whole)]
    return request if whole.response is None else [*request, whole]


def rows_of(
    values: Mapping[str, Any], traces: Mapping[str, Mapping[str, Any]], config: EncoderData, chosen: random.Random
) -> list[EncoderRow]:
    source, trace = values["source"], traces.get(values["id"], {})
    given, disputed = trace.get("labels", {}), trace.get("disputed", ())
    gold = {t: values.get(t.value) or given.get(t.value) for t in TASKS}
    labels = _three(None if t.value in disputed else label_of(t, gold[t]) for t in TASKS)
    kind = kind_of(trace.get("harm")) or KINDS.get(source)
    if kind is None and source in config.kinds_from:
        kind = kind_of(values["category"])
    attack = _attack(values, " ".join(step for steps in trace.get("steps", {}).values() for step in steps))
    if source in HATEFUL:  # a statement: a request here, and a reply in `_said`
        return [EncoderRow(values["prompt"], None, labels, kind, 0.0, source, values["licence"])]
    response = values["response"] or None
    paired = bool(response) and (labels[1] is not None or labels[2] is not None)
    whole = EncoderRow(values["prompt"], response, labels, kind, attack, source, values["licence"])
    rows = [whole] if paired else []
    if labels[0] is not None and source != "gptfuzz_reply" and (not paired or chosen.random() < config.alone):
        rows.append(_request(whole))
    return rows


def _request(row: EncoderRow) -> EncoderRow:
    """The request of an exchange by itself."""
    return replace(row, response=None, labels=(row.labels[0], None, None), kind=row.kind if row.labels[0] else None)


def _three(labels: Iterable[Label]) -> tuple[Label, Label, Label]:
    prompt_harm, refusal, response_harm = labels
    return prompt_harm, refusal, response_harm


def _attack(values: Mapping[str, Any], steps: str) -> Label:
    source = values["source"]
    if source in ATTACKS:
        return 1.0 if "raw question" not in (values["category"] or "") else 0.0
    if source == "jailbreakv_sample600" and len(values["prompt"].split()) > 60:
        return 1.0
    if (values["category"] or "").startswith("wildjailbreak adversarial"):
        return 1.0
    if steps:
        return 1.0 if STEERS.search(steps) else None if MAYBE_STEERS.search(steps) else 0.0
    return None if source in PERHAPS_ATTACKS else 0.0


def plain_questions(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every other reply under its plain question instead of the template that it was asked in.

    The question is known where the row without a template is (`raw question N`).
    """
    questions = {}
    for row in rows:
        if found := re.match(r"raw question (\d+)", row["category"] or ""):
            questions[found[1]] = row["prompt"]
    made = []
    for place, row in enumerate(rows):
        asked = re.search(r"question=(\d+)", row["category"] or "")
        plain = questions.get(asked[1]) if asked else None
        if row["response"] and plain and place % 3:
            made.append({**row, "prompt": plain, "source": "gptfuzz_reply", "category": ""})
        else:
            made.append(dict(row))
    return made
