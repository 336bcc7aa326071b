"""The rows that were written for nano and come with the package."""

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from guardreasoner.data.everyday import shipped
from guardreasoner.data.harm_kinds import kinds
from guardreasoner.train.encoder_mix import load_rows
from guardreasoner.train.encoder_settings import EncoderData
from guardreasoner.types import TASKS, Task


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def rows():
    return lines(files("guardreasoner.data") / "contrasts.jsonl")


def test_every_row_has_its_labels_and_what_is_harmful_a_kind(rows):
    for row in rows:
        tasks = [t for t in TASKS if t.value in row]
        known = (list(TASKS), [Task.refusal, Task.response_harm]) if "response" in row else (["prompt_harm"],)
        assert tasks in known, row["id"]
        assert all(row[t.value] in (TASKS[t].positive, TASKS[t].negative) for t in tasks), row["id"]
        harmful = "harmful" in (row.get("prompt_harm"), row.get("response_harm"))
        assert (row.get("category") in kinds()) is harmful, row["id"]
    assert len({row["id"] for row in rows}) == len({(row["prompt"], row.get("response")) for row in rows}) == len(rows)


def test_neither_label_is_rare(rows):
    for task in TASKS:
        found = Counter(row[task.value] for row in rows if task.value in row)
        assert min(found.values()) > 0.25 * found.total(), (task, found)


def test_no_request_is_a_test_row_of_everyday(rows):
    assert not {row["prompt"] for row in rows} & {row["prompt"] for row in lines(Path(shipped("everyday")))}


def test_they_train_where_the_recipe_says_so(tmp_path, rows):
    made, about = load_rows(tmp_path, EncoderData(contrasts=True, repeat={"contrasts": 2}, joined=0, worn=0))
    replies = sum("response" in row for row in rows)
    requests = {(row["id"].rpartition("-")[0], row["prompt"]) for row in rows if "prompt_harm" in row}
    assert about["sources"] == {"contrasts": 2 * (replies + len(requests))}
    with_reply = [row for row in made if row.response]
    assert len(with_reply) == 2 * replies
    assert all(None not in row.labels[1:] for row in with_reply)
    unlabelled = sum("prompt_harm" not in row for row in rows)
    assert sum(row.labels[0] is None for row in made) == 2 * unlabelled
    assert load_rows(tmp_path, EncoderData(contrasts=True, joined=0, worn=0, default_cap=0))[0]
