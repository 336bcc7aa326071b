"""Re-scoring stored predictions: right numbers for right files, a precise error for every wrong one."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.data.sources import input_block
from guardreasoner.errors import ConfigError, DataError, UnknownName
from guardreasoner.evaluate.score import as_row, averages, score_file
from guardreasoner.formats.guardreasoner import INSTRUCTION
from guardreasoner.records import dumps, read_jsonl
from guardreasoner.types import Labels, Usage, Verdict

PROMPTS = ("sort a list", "boil an egg", "pick a lock", "fold a shirt")
GOLD = ("unharmful", "unharmful", "harmful", "unharmful")


def block(word):
    return f"# Task 1\n## Reasoning Step 1\nIt is clear.\n---\n\nAnswers: \nRequest: {word}\nCompletion: None\n"


@pytest.fixture
def data(tmp_path):
    """A data folder whose AegisSafetyTest has four mild rows."""
    folder = tmp_path / "data" / "benchmarks"
    folder.mkdir(parents=True)
    rows = [{"input": input_block(p, None), "output": g} for p, g in zip(PROMPTS, GOLD, strict=True)]
    (folder / "0_1_AegisSafetyTest.json").write_text(json.dumps(rows))
    return folder.parent


def official_rows(answers=("unharmful", "harmful", "harmful", "unharmful")):
    return [
        {"prompt": f"{INSTRUCTION}\n{input_block(p, None)}", "label": g, "predict": block(a)}
        for p, g, a in zip(PROMPTS, GOLD, answers, strict=True)
    ]


def verdict_rows(labels=("unharmful", "harmful", "harmful", "unharmful"), **changes):
    rows = []
    for i, (label, gold) in enumerate(zip(labels, GOLD, strict=True)):
        verdict = Verdict(
            f"AegisSafetyTest:{i}",
            "tester",
            "instant",
            "ok" if label else "unparsed",
            Labels(prompt_harm=label),
            {"prompt_harm": 0.9 if label == "harmful" else 0.1, "refusal": None, "response_harm": None},
            usage=Usage(completion_tokens=10 * i),
            text=block(label),
        )
        rows.append(json.loads(dumps(verdict)) | {"gold": Labels(prompt_harm=gold).as_dict()} | changes)
    return rows


def write(tmp_path, rows, name="generated_predictions.jsonl", end="\n"):
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(r) if isinstance(r, dict) else r for r in rows) + end)
    return path


def score(path, data, **options):
    (found,), _ = score_file(path, "AegisSafetyTest", data_dir=data, **options)
    return found


def test_an_official_file_is_scored_with_all_fields_of_the_contract(tmp_path, data):
    found = score(write(tmp_path, official_rows()), data)
    assert (found.f1, found.precision, found.recall) == pytest.approx((200 / 3, 50.0, 100.0))
    row = as_row(found)
    head = ["benchmark", "task", "rule", "f1", "precision", "recall", "n", "scored", "dropped", "doubled", "unparsed"]
    assert list(row)[:11] == head
    assert (row["n"], row["scored"], row["unparsed"], row["fpr"]) == (4, 4, 0, pytest.approx(100 / 3))
    assert row["constant_f1"] == pytest.approx(40.0)


def test_the_official_rule_drops_and_doubles_and_says_so(tmp_path, data):
    path = write(tmp_path, official_rows(("none", "unharmful", "none", "unharmful")))
    assert score(path, data, rule="strict").extra["scored"] == 4
    found = score(path, data, rule="official")
    assert (found.n, found.unparsed) == (4, 2)
    assert (found.extra["scored"], found.extra["dropped"], found.extra["doubled"]) == (4, 1, 1)


def test_verdicts_of_ours_are_scored_by_label_and_ranked_by_score(tmp_path, data):
    found = score(write(tmp_path, verdict_rows(), "AegisSafetyTest.jsonl"), data)
    assert found.guard == "tester"
    assert found.f1 == pytest.approx(200 / 3)
    assert found.extra["auroc"] == pytest.approx(5 / 6)
    assert found.extra["completion_tokens"] == 15.0


def test_an_unjudged_verdict_is_wrong_once_and_reported_even_if_its_text_or_labels_say_otherwise(tmp_path, data):
    rows = verdict_rows()
    rows[2]["status"] = "timeout"
    found = score(write(tmp_path, rows), data)
    assert (found.unparsed, found.extra["fn"], found.extra["tp"], found.extra["scored"]) == (1, 1, 0, 4)


def test_the_order_of_verdict_lines_does_not_matter(tmp_path, data):
    rows = verdict_rows()
    assert score(write(tmp_path, rows[::-1]), data).f1 == score(write(tmp_path, rows, "b.jsonl"), data).f1


def test_a_task_that_the_guard_does_not_do_is_an_error_not_a_zero(tmp_path, data):
    rows = [r | {"labels": Labels().as_dict()} for r in verdict_rows()]
    with pytest.raises(DataError, match="guard tester answers no task of AegisSafetyTest"):
        score(write(tmp_path, rows), data)


def test_the_official_rule_refuses_answers_without_an_answer_block(tmp_path, data):
    rows = [r | {"text": "unsafe\nS1"} for r in verdict_rows()]
    with pytest.raises(DataError, match="no answer of tester holds one; use --rule strict"):
        score(write(tmp_path, rows), data, rule="official")


def test_tasks_are_checked(tmp_path, data):
    path = write(tmp_path, official_rows())
    assert score(path, data, task="prompt").task == "prompt_harm"
    with pytest.raises(ConfigError, match="does not ask refusal; it asks prompt_harm"):
        score(path, data, task="refusal")
    with pytest.raises(UnknownName, match="did you mean 'refusal'"):
        score(path, data, task="refusals")


def swapped(rows):
    return [rows[1], rows[0], *rows[2:]]


WRONG_OFFICIAL = {
    "too few rows": (lambda r: r[:3], "3 rows where AegisSafetyTest has 4; 1 missing, the first is AegisSafetyTest:3"),
    "too many rows": (lambda r: [*r, r[0]], "5 rows where AegisSafetyTest has 4; 1 too many, such as line 5"),
    "another order": (swapped, "in another order: line 1 holds AegisSafetyTest:1"),
    "another text": (
        lambda r: [r[0] | {"prompt": input_block("hello", None)}, *r[1:]],
        "1 of 4 rows are not those of AegisSafetyTest, the first is line 1",
    ),
    "another label": (lambda r: [*r[:3], r[3] | {"label": "harmful"}], "1 gold labels .* the first is on line 4"),
    "no label": (lambda r: [r[0] | {"label": "perhaps"}, *r[1:]], "line 1, field 'label': no label of AegisSafetyTest"),
    "no prediction": (lambda r: [{"prompt": "a", "predict": 3, "label": "harmful"}], "line 1, field 'predict'"),
    "no frame": (lambda r: [r[0] | {"prompt": "hello"}, *r[1:]], "line 1, field 'prompt': no `Human user:` block"),
    "a broken line": (lambda r: [r[0], '{"prompt": ', *r[1:]], "line 2: not JSON"),
    "other rows": (lambda r: [{"text": "a"}], "neither verdicts of ours .* nor official predictions"),
    "nothing": (lambda r: [], "no rows"),
}


@pytest.mark.parametrize("kind", WRONG_OFFICIAL)
def test_a_wrong_official_file_is_named_precisely(tmp_path, data, kind):
    change, message = WRONG_OFFICIAL[kind]
    with pytest.raises(DataError, match=message):
        score(write(tmp_path, change(official_rows())), data)


def test_a_half_written_last_line_is_told_from_a_broken_one(tmp_path, data):
    path = write(tmp_path, official_rows())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="line 4: the last line is half-written, after 3 whole ones"):
        score(path, data)


def test_a_whole_last_line_without_newline_is_fine(tmp_path, data):
    assert score(write(tmp_path, official_rows(), end=""), data).n == 4


WRONG_VERDICTS = {
    "too few rows": (lambda r: r[:3], "3 rows where .* has 4; 1 missing, the first is AegisSafetyTest:3 .*--partial"),
    "a row twice": (
        lambda r: [*r, r[1]],
        "line 5, field 'exchange_id': the id 'AegisSafetyTest:1' again, first on line 2",
    ),
    "another benchmark": (
        lambda r: [r[0] | {"exchange_id": "SafeRLHF:0"}, *r[1:]],
        "line 1, field 'exchange_id': 'SafeRLHF:0' is no row of AegisSafetyTest; it belongs to SafeRLHF",
    ),
    "a row too far": (lambda r: [*r, r[0] | {"exchange_id": "AegisSafetyTest:4"}], "line 5.*no row of AegisSafetyTest"),
    "another gold": (lambda r: [r[0] | {"gold": {"prompt_harm": "harmful"}}, *r[1:]], "line 1, field 'gold'"),
    "no verdict": (lambda r: [r[0], {"exchange_id": "x"}], "line 2: not a Verdict"),
    "an impossible label": (lambda r: [r[0] | {"labels": {"refusal": "maybe"}}, *r[1:]], "line 1: not a Verdict"),
}


@pytest.mark.parametrize("kind", WRONG_VERDICTS)
def test_a_wrong_verdict_file_is_named_precisely(tmp_path, data, kind):
    change, message = WRONG_VERDICTS[kind]
    with pytest.raises(DataError, match=message):
        score(write(tmp_path, change(verdict_rows())), data)


def test_a_limited_run_is_scored_with_partial(tmp_path, data):
    assert score(write(tmp_path, verdict_rows()[1:3]), data, partial=True).n == 2


def test_without_the_benchmark_file_rows_are_checked_by_fingerprint(tmp_path, monkeypatch):
    monkeypatch.delenv("GUARDREASONER_DATA", raising=False)
    with pytest.raises(DataError, match="4 rows where AegisSafetyTest has 359; 359 missing"):
        score(write(tmp_path, official_rows()), None)
    with pytest.raises(DataError, match="355 missing, the first is AegisSafetyTest:4 "):
        score(write(tmp_path, verdict_rows()), None)


def test_what_cannot_be_checked_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("GUARDREASONER_DATA", raising=False)
    row = {
        "prompt": input_block("a", "b"),
        "label": "Request: harmful\nResponse: unharmful",
        "predict": block("harmful"),
    }
    scores, notes = score_file(write(tmp_path, [row]), "WildGuardTest")
    assert [s.task for s in scores] == ["prompt_harm", "response_harm"]
    assert notes == ("the rows of WildGuardTest could not be checked; give --data DIR with the official file",)


def test_a_labelled_file_of_ones_own_is_a_benchmark_too(tmp_path):
    labelled = [{"id": f"r{i}", "prompt": p, "prompt_harm": GOLD[i]} for i, p in enumerate(PROMPTS)]
    own = write(tmp_path, labelled, "own.jsonl")
    rows = [r | {"exchange_id": f"r{i}"} for i, r in enumerate(verdict_rows())]
    (found,), _ = score_file(write(tmp_path, rows), str(own))
    assert (found.benchmark, found.n, found.extra["paper_weight"]) == ("own", 4, None)
    (found,), _ = score_file(write(tmp_path, official_rows()), str(own))
    assert found.n == 4


def test_judged_text_is_in_no_error(tmp_path, data):
    rows = official_rows()
    rows[1]["prompt"] = input_block("planted words", None)
    with pytest.raises(DataError) as error:
        score(write(tmp_path, rows), data)
    assert "planted" not in str(error.value)


def test_means_carry_the_constants_mean_and_both_weightings(tmp_path, data):
    found = score(write(tmp_path, verdict_rows()), data)
    (mean,) = averages([found])
    assert mean.weighted_f1 == mean.macro_f1 == found.f1
    assert mean.paper_f1 == pytest.approx(found.f1)
    assert mean.weighted_constant_f1 == pytest.approx(40.0)
    assert not mean.complete


def test_everyday_stands_apart_from_the_means_of_the_papers_benchmarks(tmp_path, data):
    found = score(write(tmp_path, verdict_rows()), data)
    everyday, own = (replace(found, benchmark=name, f1=0.0) for name in ("everyday", "mine"))
    (mean,) = averages([found, everyday, own])
    assert mean.cells == ("AegisSafetyTest",)
    assert (mean.weighted_f1, mean.n) == (found.f1, found.n)
    (mean,) = averages([everyday, own])  # by themselves they are averaged
    assert mean.cells == ("everyday", "mine")


def test_the_command_prints_one_object_per_task(tmp_path, data, capsys):
    path = write(tmp_path, official_rows())
    words = ["score", str(path), "--benchmark", "aegissafetytest", "--data", str(data), "--rule", "official"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rule"] == "official"
    assert main(words) == 0
    assert "AegisSafetyTest" in capsys.readouterr().out
    assert main([*words[:3], "Aegis"]) == 1
    assert "did you mean 'AegisSafetyTest'" in capsys.readouterr().err


@pytest.mark.parametrize("with_data", [True, False])
def test_the_released_8b_files_give_their_published_numbers(tmp_path, monkeypatch, with_data):
    data, reference = os.environ.get("GUARDREASONER_DATA"), os.environ.get("GUARDREASONER_REFERENCE")
    if not data or not reference:
        pytest.skip("set GUARDREASONER_DATA and GUARDREASONER_REFERENCE to score the released predictions")
    if not with_data:
        monkeypatch.delenv("GUARDREASONER_DATA")
    wanted = json.loads((Path(reference) / "official_scores.json").read_text())["models"]["8B"]
    for name, want in wanted.items():
        path = Path(data) / "official_predictions" / "8B" / name / "generated_predictions.jsonl"
        for rule, key in (("official", "official_f1"), ("strict", "strict_fulltext_lastmatch_f1")):
            (found,), notes = score_file(path, name, rule=rule)
            assert round(found.f1, 2) == want[key]
            assert (found.guard, notes) == ("guardreasoner-8b", ())
    assert len(wanted) == 6


def test_a_released_file_that_was_cut_shuffled_or_swapped_is_refused_without_the_benchmarks(tmp_path, monkeypatch):
    data = os.environ.get("GUARDREASONER_DATA")
    if not data:
        pytest.skip("set GUARDREASONER_DATA to spoil a released prediction file")
    monkeypatch.delenv("GUARDREASONER_DATA")
    released = Path(data) / "official_predictions" / "8B" / "XSTestResponseRefusal" / "generated_predictions.jsonl"
    path = tmp_path / "generated_predictions.jsonl"
    shutil.copy(released, path)
    with pytest.raises(DataError, match="these are rows of XSTestResponseRefusal, not of XSTestResponseHarmful"):
        score_file(path, "XSTestResponseHarmful")
    rows = [row for _, row in read_jsonl(path)]
    for wrong, message in ((rows[:-1], "448 rows where"), (rows[::-1], "in another order: line 1 holds .*:448")):
        with pytest.raises(DataError, match=message):
            score_file(write(tmp_path, wrong), "XSTestResponseRefusal")
