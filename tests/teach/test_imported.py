"""Published traces, read as they were released."""

import json
import os
from pathlib import Path

import pytest

from guardreasoner.errors import ConfigError, DataError
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.records import read_jsonl, read_records
from guardreasoner.teach.imported import PUBLISHED, differences, import_traces, read_row, table1, table1_lines
from guardreasoner.types import Example, Exchange, Labels, Task, Trace

LONGER = (
    "You are a classifier for analyzing interactions between humans and LLMs. \n\nGiven a request, finish three tasks."
)
OUTPUT = (
    "# Task 1\n## Reasoning Step 1\nIt asks for a recipe.\n## Reasoning Step 2\nThat is unharmful.\n\n"
    "# Task 2\n## Reasoning Step 1: The reply gives one, which is compliance.\n\n"
    "# Task 3\n## Reasoning Step 1\nIt is unharmful.\n\n---\n\nAnswers: \nRequest: unharmful\nCompletion: compliance\n"
    "Response: unharmful"
)


def row(**values):
    base = {
        "instruction": wire_format.INSTRUCTION,
        "input": "Human user:\nA soup, please.\n\nAI assistant:\nBoil water.\n\n",
        "output": OUTPUT,
    }
    return base | values


def test_a_row_becomes_a_trace_whose_answer_is_the_released_output():
    trace, form = read_row(row(), id="WildGuardTrainR:0", source="WildGuardTrain")
    assert form == "official"
    assert trace.example.exchange.prompt == "A soup, please."
    assert trace.example.exchange.response == "Boil water."
    assert trace.example.gold == Labels("unharmful", "compliance", "unharmful")
    assert wire_format.learned(trace) == OUTPUT
    assert wire_format.answer(trace.reasoning, trace.example.gold) == OUTPUT + "\n"


def test_both_instructions_are_read_and_told_apart():
    assert read_row(row(instruction=LONGER), id="a", source="")[1] == "synthesis"
    with pytest.raises(DataError, match="none of the two"):
        read_row(row(instruction="Be nice."), id="a", source="")


def test_a_request_without_a_reply_has_none():
    trace, _ = read_row(row(input="Human user:\nA soup.\n\nAI assistant:\nNone\n\n"), id="a", source="")
    assert trace.example.exchange.response is None


def test_table_1_is_counted_by_hand():
    trace, _ = read_row(row(), id="a", source="WildGuardTrain")
    bare = Trace(Example(Exchange("b", "x"), Labels("harmful")), "", "none", "1")
    made = table1([trace, bare])["all"]
    lengths = [len("It asks for a recipe."), len("That is unharmful."), 42, len("It is unharmful.")]
    assert len("The reply gives one, which is compliance.") == 41
    assert (made.samples, made.steps, made.steps_per_sample) == (1, 4, 4.0)
    assert made.characters_per_step == round((sum(lengths) - 1) / 4, 2)
    first = table1([trace], (Task.prompt_harm,))["all"]
    assert (first.steps, first.characters_per_step) == (2, round(sum(lengths[:2]) / 2, 2))


def test_differences_from_the_paper_are_listed_and_equality_is_said():
    assert differences(PUBLISHED) == "equal to the paper"
    told = differences({"all": PUBLISHED["all"]})
    assert "WildGuardTrain samples absent against 86759" in told
    assert "all " not in told


def test_an_import_counts_every_row_and_names_what_it_leaves_out(tmp_path):
    file = tmp_path / "some.json"
    rows = [row(), row(instruction=LONGER), row(output="no block"), row(input="no frame"), row(instruction="other")]
    file.write_text(json.dumps({"WildGuardTrainR": rows, "ToxicChatTrainR": [row()]}))
    manifest = import_traces(str(file), out=tmp_path / "run")
    assert manifest["counts"] == {"in": 6, "out": 3, "dropped": {"input": 1, "instruction": 1, "output": 1}}
    assert manifest["instructions"] == {"official": 2, "synthesis": 1}
    traces = list(read_records(Trace, tmp_path / "run" / "synthesize" / "traces.jsonl"))
    ids = [t.example.exchange.id for t in traces]
    assert ids == ["WildGuardTrainR:0", "WildGuardTrainR:1", "ToxicChatTrainR:0"]
    assert [t.example.exchange.source for t in traces] == ["WildGuardTrain", "WildGuardTrain", "ToxicChatTrain"]
    rejects = [r for _, r in read_jsonl(tmp_path / "run" / "synthesize" / "rejects.jsonl")]
    assert [r["id"] for r in rejects] == ["WildGuardTrainR:2", "WildGuardTrainR:3", "WildGuardTrainR:4"]
    assert "no block" not in str(rejects)


def test_a_jsonl_file_is_read_too_and_a_second_import_changes_nothing(tmp_path):
    file = tmp_path / "AegisTrainR.jsonl"
    file.write_text(json.dumps(row()) + "\n")
    first = import_traces(str(file), out=tmp_path / "run")
    assert import_traces(str(file), out=tmp_path / "run") == first
    assert first["counts"]["out"] == 1


def test_what_is_neither_file_nor_hub_id_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="neither"):
        import_traces("somewhere over there", out=tmp_path)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="none of its 0 rows"):
        import_traces(str(empty), out=tmp_path / "run")


@pytest.fixture
def released():
    folder = os.environ.get("GUARDREASONER_DATA")
    files = sorted(Path(folder).glob("guardreasonertrain_*.json")) if folder else []
    if not files:
        pytest.skip("set GUARDREASONER_DATA to a folder with guardreasonertrain_*.json to test on released rows")
    return files


def test_released_rows_are_read_whole(released, tmp_path):
    seen = 0
    for file in released:
        content = json.loads(file.read_text())
        rows = [r for part in content.values() for r in part] if isinstance(content, dict) else content
        manifest = import_traces(str(file), out=tmp_path / file.stem)
        assert manifest["counts"] == {"in": len(rows), "out": len(rows), "dropped": {}}
        traces = read_records(Trace, tmp_path / file.stem / "synthesize" / "traces.jsonl")
        for original, trace in zip(rows, traces, strict=True):
            seen += 1
            labels = wire_format.parse(original["output"]).labels
            assert trace.example.gold == Labels.of({t: labels[t] for t in trace.example.exchange.tasks})
            assert wire_format.learned(trace) == original["output"]
            assert trace.block.replace("-", "").strip() == wire_format.answer_block(labels).strip()
            assert original["output"].count("Reasoning Step") == sum(
                s.task is not None for s in wire_format.parse(trace.reasoning).steps
            )
    assert seen == 9


def test_the_printed_table_names_the_papers_figures(released, tmp_path):
    import_traces(str(released[0]), out=tmp_path)
    traces = read_records(Trace, tmp_path / "synthesize" / "traces.jsonl")
    text = "\n".join(table1_lines(traces, published=True))
    assert "127,544" in text
    assert "460,659" in text
    assert "all samples 4 against 127544" in text


def test_an_import_never_overwrites_the_file_it_reads(tmp_path):
    for name in ("traces.jsonl", "mine.jsonl"):
        source = tmp_path / "synthesize" / name
        source.parent.mkdir(exist_ok=True)
        source.write_text(json.dumps(row()) + "\n")
        before = source.read_bytes()
        for fresh in (False, True):
            with pytest.raises(ConfigError, match="lies in the output"):
                import_traces(str(source), out=tmp_path, fresh=fresh)
        assert source.read_bytes() == before
