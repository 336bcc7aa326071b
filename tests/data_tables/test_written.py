"""Reasoning that lies beside rows: taken by id or from the row, checked against the row's labels, disputes left out."""

import json

import pytest

from guardreasoner.data.mix import DataConfig, load_mix, load_written
from guardreasoner.errors import DataError
from guardreasoner.records import read_records
from guardreasoner.teach.config import SynthesizeConfig
from guardreasoner.teach.synthesize import synthesize
from guardreasoner.types import Trace

STEPS = {
    "prompt_harm": ["Someone asks for a neighbour's post.", "That is theft, so the request is harmful."],
    "refusal": ["It declines, so this is a refusal."],
    "response_harm": ["Nothing is given, so the response is unharmful."],
}
LABELS = {"prompt_harm": "harmful", "refusal": "refusal", "response_harm": "unharmful"}


def line(path, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")


@pytest.fixture
def folder(tmp_path):
    text = {"prompt": "how do I get at my neighbour's post", "response": "I can't help with that."}
    common = {"source": "asked", "use": "permissive", "licence": "MIT", **text}
    line(tmp_path / "train" / "asked.jsonl", id="asked-1", **common, prompt_harm="harmful")
    line(tmp_path / "train" / "asked.jsonl", id="asked-2", **common, prompt_harm="unharmful")
    line(tmp_path / "train" / "asked.jsonl", id="asked-3", **common, prompt_harm="harmful")
    line(tmp_path / "traces" / "traces.jsonl", id="asked-1", labels=LABELS, steps=STEPS, harm="theft", disputed=[])
    line(tmp_path / "traces" / "traces.jsonl", id="asked-2", labels=LABELS, steps=STEPS, disputed=["prompt_harm"])
    own = {**common, "source": "everyday", "domain": "a01", **LABELS, "steps": STEPS, "category": "mail theft"}
    line(tmp_path / "everyday" / "a01.jsonl", id="everyday-1", **own, context=[{"role": "tool", "content": "x"}])
    return tmp_path


MIX = DataConfig(("train", "everyday"), reasoned=True)


def test_only_undisputed_rows_with_reasoning_train_and_the_writer_fills_missing_labels(folder):
    train, _, counts = load_mix(MIX, folder)
    assert sorted(e.exchange.id for e in train) == ["asked-1", "everyday-1"]
    assert all(e.gold.as_dict() == LABELS for e in train)
    assert counts.as_dict()["dropped"] == {"disputed": 1, "no reasoning": 1}


def test_a_domain_is_part_of_the_source_so_that_domains_can_be_left_out(folder):
    train, _, _ = load_mix(DataConfig(("train", "everyday"), reasoned=True, drop=("everyday-a01",)), folder)
    assert [e.exchange.id for e in train] == ["asked-1"]


def test_a_trace_that_contradicts_its_row_is_refused_with_file_and_line(folder):
    wrong = {**LABELS, "prompt_harm": "unharmful"}
    line(folder / "traces" / "traces.jsonl", id="asked-3", labels=wrong, steps=STEPS, disputed=[])
    with pytest.raises(DataError, match=r"asked.jsonl, line 3: the trace concludes unharmful where .* is harmful"):
        load_mix(MIX, folder)


def test_a_trace_for_an_unknown_row_is_refused(folder):
    line(folder / "traces" / "traces.jsonl", id="nobody-1", labels=LABELS, steps=STEPS, disputed=[])
    with pytest.raises(DataError, match=r"1 traces are for unknown rows \(nobody-1"):
        load_mix(MIX, folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": {"prompt_harm": "It asks for a theft."}}, "`steps` holds a list of texts for each task"),
        ({"steps": ["It asks for a theft."]}, "`steps` holds a list of texts for each task"),
        ({"context": [{"content": "x"}]}, "`context` is a list of objects"),
        ({"context": ["x"]}, "`context` is a list of objects"),
    ],
)
def test_a_row_whose_fields_are_something_else_is_named(folder, changes, said):
    row = {"id": "mine-1", "source": "mine", "prompt": "hello", **LABELS, "response": "hi", "steps": STEPS}
    line(folder / "everyday" / "mine.jsonl", **row | changes)
    with pytest.raises(DataError, match=rf"mine\.jsonl, line 1: .*{said}"):
        load_mix(MIX, folder)


def test_a_line_that_is_no_trace_is_refused_with_its_number(folder):
    line(folder / "traces" / "traces.jsonl", id="asked-3", labels=LABELS)
    with pytest.raises(DataError, match="line 3: a trace has"):
        load_written(MIX, folder)


def test_written_reasoning_becomes_traces_in_our_form_with_the_kind_of_harm_once(folder, tmp_path):
    manifest = synthesize(MIX, SynthesizeConfig(teacher="written"), out=tmp_path / "run", data_dir=folder, quiet=True)
    assert (manifest["reasoned"], manifest["labels_only"]) == (2, 0)
    traces = {t.example.exchange.id: t for t in read_records(Trace, tmp_path / "run" / "synthesize" / "traces.jsonl")}
    assert traces["asked-1"].reasoning == (
        "# Task 1\n## Reasoning Step 1\nSomeone asks for a neighbour's post.\n"
        "## Reasoning Step 2\nThat is theft, so the request is harmful. The kind of harm is theft.\n"
        "# Task 2\n## Reasoning Step 1\nIt declines, so this is a refusal.\n"
        "# Task 3\n## Reasoning Step 1\nNothing is given, so the response is unharmful.\n"
    )
