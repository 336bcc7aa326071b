"""Disputed training labels become a blind review, and the writer's labels a patch that is applied to a copy."""

import json

import pytest

from guardreasoner.cli.main import main
from guardreasoner.errors import DataError
from guardreasoner.records import read_jsonl, write_jsonl
from guardreasoner.review.app import Store
from guardreasoner.review.disputed import read_disputed

ROWS = [
    {"id": "s-1", "prompt": "How do I kill a process?", "response": None, "prompt_harm": "harmful", "licence": "MIT"},
    {"id": "s-2", "prompt": "Bake a cake", "response": "No.", "prompt_harm": "unharmful", "refusal": "compliance"},
    {"id": "s-3", "prompt": "Hello", "response": None, "prompt_harm": "unharmful"},
]
TRACES = [
    {"id": "s-2", "source": "s", "labels": {"prompt_harm": "unharmful", "refusal": "refusal"},
     "steps": {"refusal": ["It says no.", "This is a refusal."]}, "disputed": ["refusal"]},
    {"id": "s-3", "source": "s", "labels": {"prompt_harm": "unharmful"}, "steps": {}, "disputed": []},
    {"id": "s-1", "source": "s", "labels": {"prompt_harm": "unharmful"},
     "steps": {"prompt_harm": ["A process of a computer is meant, so the request is unharmful."]},
     "disputed": ["prompt_harm"]},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    write_jsonl(tmp_path / "train" / "s.jsonl", ROWS)
    write_jsonl(tmp_path / "traces.jsonl", TRACES)
    return tmp_path


def test_disputed_rows_are_reviewed_blind_and_the_writer_is_one_reviewer(folder, capsys):
    out = folder / "review"
    asked = ["disagreements", "--traces", str(folder / "traces.jsonl"), "--data", str(folder), "--out", str(out)]
    assert main(asked) == 0
    assert "2 rows to review" in capsys.readouterr().err
    items = [row for _, row in read_jsonl(out / "items.jsonl")]
    assert {i["id"]: i["tasks"] for i in items} == {"s-1": ["prompt_harm"], "s-2": ["refusal"]}
    assert "harmful" not in json.dumps(items)
    flips = {r["exchange_id"]: r for _, r in read_jsonl(out / "reviews-model.jsonl")}
    assert {r["reviewer"] for r in flips.values()} == {"model"}
    assert flips["s-1"]["labels"] == {"prompt_harm": "unharmful", "refusal": None, "response_harm": None}
    assert flips["s-2"]["note"] == "This is a refusal."
    store = Store(out, "ann")
    assert store.progress()["done"] == 0
    assert store.reveal("s-2")[0]["verdicts"][0]["label"] == "refusal"


def test_a_patch_goes_into_a_copy_and_changes_only_the_flipped_labels(folder, capsys):
    out = folder / "review"
    main(["disagreements", "--traces", str(folder / "traces.jsonl"), "--data", str(folder), "--out", str(out)])
    patch = ["disagreements", "--data", str(folder), "--reviews", str(out / "reviews-model.jsonl"), "--patch"]
    assert main([*patch, str(folder / "fixed")]) == 0
    assert "2 labels changed" in capsys.readouterr().err
    fixed = [row for _, row in read_jsonl(folder / "fixed" / "s.jsonl")]
    assert fixed == [{**ROWS[0], "prompt_harm": "unharmful"}, {**ROWS[1], "refusal": "refusal"}, ROWS[2]]
    assert [row for _, row in read_jsonl(folder / "train" / "s.jsonl")] == ROWS
    assert main([*patch, str(folder / "train")]) == 1
    assert "never edited" in capsys.readouterr().err


def test_what_is_missing_is_said(folder, capsys):
    write_jsonl(folder / "train" / "s.jsonl", ROWS[:1])
    with pytest.raises(DataError, match=r"its row is not in s\.jsonl"):
        read_disputed(folder / "traces.jsonl", folder / "train")
    assert main(["disagreements"]) == 1
    assert "give finished runs, or --traces FILE" in capsys.readouterr().err
    assert main(["review", str(folder)]) == 1
    assert "--reviewer NAME" in capsys.readouterr().err
