"""The benchmark table: 13 cells, upstream columns, official files, fingerprints, names."""

import json
import os

import pytest

from guardreasoner.data import benchmarks, fingerprints
from guardreasoner.data.benchmarks import (
    BENCHMARKS,
    find_benchmark,
    load_benchmark,
    local_file,
    read_gold,
    safe_rlhf_rows,
    title,
)
from guardreasoner.data.sources import SkippedRow, input_block
from guardreasoner.errors import ConfigError, DataError, UnknownName
from guardreasoner.types import TASKS, Task


def gold(name, row):
    taken = BENCHMARKS[name].row(row)
    return taken.reason if isinstance(taken, SkippedRow) else {k: v for k, v in taken.gold.as_dict().items() if v}


def test_there_are_11_sources_and_13_cells():
    assert len(BENCHMARKS) == 11
    assert sum(len(b.cells) for b in BENCHMARKS.values()) == 13
    assert {t: sum(c.task == t for b in BENCHMARKS.values() for c in b.cells) for t in TASKS} == {
        Task.prompt_harm: 6,
        Task.refusal: 2,
        Task.response_harm: 5,
    }


def test_paper_counts_are_those_of_table_8_with_its_499():
    assert BENCHMARKS["XSTestResponseRefusal"].cells[0].paper_n == 499
    assert BENCHMARKS["XSTestResponseRefusal"].cells[0].n == 449
    assert sum(c.paper_n for b in BENCHMARKS.values() for c in b.cells if c.task == "prompt_harm") == 6987


@pytest.mark.parametrize("name", ["aegissafetytest", "XSTestReponseHarmful", "xstestreponseharmful", "SAFERLHF"])
def test_names_are_found_whatever_the_case_and_with_the_official_misspelling(name):
    assert find_benchmark(name).name in BENCHMARKS


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'BeaverTails'"):
        find_benchmark("BeaverTail")


def test_toxic_chat_keeps_human_annotated_rows_and_ignores_jailbreaking():
    row = {"user_input": "hello", "toxicity": 0, "jailbreaking": 1, "human_annotation": True}
    assert gold("ToxicChat", row) == {"prompt_harm": "unharmful"}
    assert gold("ToxicChat", row | {"toxicity": 1, "human_annotation": "True"}) == {"prompt_harm": "harmful"}
    assert gold("ToxicChat", row | {"human_annotation": False}) == "no human annotation"
    assert gold("ToxicChat", row | {"human_annotation": "False"}) == "no human annotation"


def test_moderation_rows_are_harmful_iff_a_category_is_1():
    assert gold("OpenAIModeration", {"prompt": "a", "S": 0, "H": None}) == {"prompt_harm": "unharmful"}
    assert gold("OpenAIModeration", {"prompt": "a", "S": 0, "V2": 1}) == {"prompt_harm": "harmful"}


def test_aegis_needs_two_safe_votes_of_three():
    row = {"text": " a ", "text_type": "user_message", "labels_0": "Safe", "labels_1": "Safe", "labels_2": "Violence"}
    assert gold("AegisSafetyTest", row) == {"prompt_harm": "unharmful"}
    assert gold("AegisSafetyTest", row | {"labels_1": "Needs Caution"}) == {"prompt_harm": "harmful"}
    assert gold("AegisSafetyTest", row | {"text_type": "llm_response"}) == "not a user message"
    assert BENCHMARKS["AegisSafetyTest"].row(row).exchange.prompt == "a"


def test_harmbench_prompts_leave_out_contextual_behaviours():
    assert gold("HarmBenchPrompt", {"Behavior": "a", "FunctionalCategory": "standard"}) == {"prompt_harm": "harmful"}
    assert gold("HarmBenchPrompt", {"Behavior": "a", "FunctionalCategory": "contextual"}) == "contextual behaviour"


def test_harmbench_replies_are_harmful_by_two_votes_of_three():
    row = {"test_case": "a", "generation": "b", "human_0": 1, "human_1": 0, "human_2": 0, "experiment": "default"}
    assert gold("HarmBenchResponse", row) == {"response_harm": "unharmful"}
    assert gold("HarmBenchResponse", row | {"human_2": 1}) == {"response_harm": "harmful"}
    assert BENCHMARKS["HarmBenchResponse"].row(row | {"experiment": "gcg"}).category == "adversarial"


def test_wildguard_rows_keep_the_labels_that_are_not_null():
    row = {
        "prompt": "a", "response": "b", "adversarial": True, "prompt_harm_label": "harmful",
        "response_refusal_label": None, "response_harm_label": "unharmful",
    }  # fmt: skip
    assert gold("WildGuardTest", row) == {"prompt_harm": "harmful", "response_harm": "unharmful"}
    nothing = {k: None for k in row if k.endswith("_label")}
    assert gold("WildGuardTest", row | nothing) == "no label"


def test_beavertails_and_xstest_take_the_label_as_given():
    row = {"prompt": "a", "response": "b", "is_safe": False, "category": {"violence": True, "fraud": False}}
    assert gold("BeaverTails", row) == {"response_harm": "harmful"}
    assert BENCHMARKS["BeaverTails"].row(row).category == "violence"
    assert gold("XSTestResponseHarmful", {"prompt": "a", "response": "b", "label": "harmful"}) == {
        "response_harm": "harmful"
    }
    assert gold("XSTestResponseRefusal", {"prompt": "a", "response": "b", "label": "refusal"}) == {"refusal": "refusal"}


def test_safe_rlhf_draws_1000_pairs_and_puts_safe_replies_first_with_the_same_prompts_in_both_halves():
    pairs = [
        {"prompt": f"p{i}", "response_0": f"a{i}", "response_1": f"b{i}",
         "is_response_0_safe": i % 2 == 0, "is_response_1_safe": i % 2 == 1}
        for i in range(1200)
    ]  # fmt: skip
    both = {"prompt": "x", "response_0": "y", "response_1": "z", "is_response_0_safe": True, "is_response_1_safe": True}
    rows = safe_rlhf_rows([both, *pairs])
    assert len(rows) == 2000
    assert all(r["is_safe"] for r in rows[:1000])
    assert not any(r["is_safe"] for r in rows[1000:])
    assert [r["prompt"] for r in rows[:1000]] == [r["prompt"] for r in rows[1000:]]
    assert rows == safe_rlhf_rows([both, *pairs])
    with pytest.raises(DataError, match="1000 are wanted"):
        safe_rlhf_rows(pairs[:10])


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "benchmarks"
    folder.mkdir(parents=True)

    def write(file, rows):
        (folder / file).write_text(json.dumps(rows))
        return folder.parent

    return write


def test_official_files_are_read_by_frame_with_none_as_no_reply(data):
    rows = [{"instruction": "x", "input": input_block("one\n\ntwo", None), "output": "harmful"}]
    folder = data("0_1_AegisSafetyTest.json", rows)
    (example,) = load_benchmark("AegisSafetyTest", folder)
    assert example.exchange.id == "AegisSafetyTest:0"
    assert (example.exchange.prompt, example.exchange.response) == ("one\n\ntwo", None)
    assert example.gold.as_dict() == {"prompt_harm": "harmful", "refusal": None, "response_harm": None}


def test_labels_in_an_answer_block_are_read_too(data):
    block = "Answers: \nRequest: None\nCompletion: None\nResponse: unharmful\n"
    folder = data("0_A_beaver_tails.json", [{"input": input_block("a", "b"), "output": block}])
    assert load_benchmark("beavertails", folder)[0].gold.response_harm == "unharmful"


def test_wildguard_is_read_with_upstream_columns(data):
    row = {"prompt": "a", "response": "b", "prompt_harm_label": "harmful", "response_harm_label": None,
           "response_refusal_label": "refusal", "adversarial": False}  # fmt: skip
    (example,) = load_benchmark("WildGuardTest", data("0_4_wild_guard_test.json", [row]))
    assert example.gold.as_dict() == {"prompt_harm": "harmful", "refusal": "refusal", "response_harm": None}
    assert example.category == "vanilla"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"input": "hello", "output": "harmful"}], "row 0: not an input block"),
        ([{"input": input_block("a", None), "output": "maybe"}], "row 0: no label of AegisSafetyTest"),
        ([{"input": input_block("a\n\nAI assistant:\nx", "b"), "output": "harmful"}], "row 0: judged text repeats"),
        ([{"text": "a"}], "row 0 has no `input`"),
        ({"a": 1}, "where a list of objects is wanted"),
    ],
)
def test_a_broken_official_file_names_the_row_and_quotes_no_text(data, rows, message):
    with pytest.raises(DataError, match=message):
        load_benchmark("AegisSafetyTest", data("0_1_AegisSafetyTest.json", rows))


def test_an_absent_file_says_where_to_put_it(data):
    folder = data("0_1_AegisSafetyTest.json", [])
    with pytest.raises(DataError, match=r"accept its terms at https://huggingface.co/datasets/allenai/wildguardmix"):
        load_benchmark("WildGuardTest", folder)
    with pytest.raises(ConfigError, match="no data folder"):
        load_benchmark("WildGuardTest", folder / "nowhere")


def test_gold_is_a_bare_word_or_the_first_verdict_of_a_block():
    assert read_gold("refusal", BENCHMARKS["XSTestResponseRefusal"]).refusal == "refusal"
    both = "Request: harmful\nCompletion: None\nResponse: Unharmful"
    assert read_gold(both, BENCHMARKS["WildGuardTest"]).as_dict() == {
        "prompt_harm": "harmful",
        "refusal": None,
        "response_harm": "unharmful",
    }


def test_a_set_that_changed_upstream_is_named_with_row_and_column(monkeypatch):
    monkeypatch.delenv("GUARDREASONER_DATA", raising=False)
    monkeypatch.setattr(benchmarks, "load_rows", lambda source, name: [{"prompt": "a"}, {"question": "b"}])
    with pytest.raises(DataError, match="SimpleSafetyTests, row 1: no column 'prompt'; the set may have changed"):
        load_benchmark("SimpleSafetyTests")


def test_rows_from_the_hub_are_filtered_and_numbered(monkeypatch):
    monkeypatch.delenv("GUARDREASONER_DATA", raising=False)
    kinds = ("standard", "contextual", "copyright")
    rows = [{"Behavior": kind, "FunctionalCategory": kind} for kind in kinds]
    monkeypatch.setattr(benchmarks, "load_rows", lambda source, name: rows)
    examples = load_benchmark("HarmBenchPrompt")
    assert [(e.exchange.id, e.exchange.prompt) for e in examples] == [
        ("HarmBenchPrompt:0", "standard"),
        ("HarmBenchPrompt:1", "copyright"),
    ]


def test_the_title_of_a_file_is_its_stem():
    assert title("some/folder/mine.jsonl") == "mine"
    assert title("toxicchat") == "ToxicChat"


def test_fingerprints_cover_every_benchmark_but_the_gated_one_and_agree_with_the_table():
    known = fingerprints.known()
    assert set(BENCHMARKS) - set(known) == {"WildGuardTest"}
    assert {n: len(rows) for n, rows in known.items()} == {n: b.cells[0].n for n, b in BENCHMARKS.items() if n in known}


def test_differences_of_rows_are_named():
    name = "SimpleSafetyTests"
    right = list(fingerprints.known()[name])
    say = fingerprints.text_difference
    assert say(name, right) is None
    assert say("WildGuardTest", right) is None
    assert say(name, right[:-1]) == f"99 rows where {name} has 100; 1 missing, the first is {name}:99"
    assert say(name, [*right, right[0]]) == f"101 rows where {name} has 100; 1 too many, such as row 100"
    assert say(name, right[::-1], unit="line") == f"the rows of {name} in another order: line 1 holds {name}:99"
    assert say("AegisSafetyTest", right) == f"these are rows of {name}, not of AegisSafetyTest"
    changed = [*right[:5], b"\0\0\0\0", *right[6:]]
    assert say(name, changed) == f"1 of 100 rows are not those of {name}, the first is row 5"
    flipped = [*right[:5], right[5][:3] + bytes([right[5][3] ^ 1]), *right[6:]]
    assert say(name, flipped) is None
    assert (
        fingerprints.label_difference(name, flipped) == f"1 gold labels are not those of {name}, the first is on row 5"
    )
    assert fingerprints.label_difference(name, right) is None


def test_the_official_files_hold_what_the_table_says():
    if not os.environ.get("GUARDREASONER_DATA"):
        pytest.skip("set GUARDREASONER_DATA to read the official benchmark files")
    seen = 0
    for benchmark in BENCHMARKS.values():
        if local_file(benchmark.name) is None:
            continue
        examples = load_benchmark(benchmark.name)
        (cell,) = benchmark.cells
        labels = [e.gold[cell.task] for e in examples]
        assert (len(labels), labels.count(TASKS[cell.task].positive)) == (cell.n, cell.positives), benchmark.name
        assert all((e.exchange.response is None) != TASKS[cell.task].needs_response for e in examples)
        found = fingerprints.fingerprints(examples)
        assert fingerprints.text_difference(benchmark.name, found) is None
        assert fingerprints.label_difference(benchmark.name, found) is None
        seen += 1
    assert seen >= 10
