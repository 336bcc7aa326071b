"""Running a guard over benchmarks: what is written, resuming, drawing, correcting, gating, replaying."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from guardreasoner.cli.main import main
from guardreasoner.data.sources import input_block
from guardreasoner.errors import ConfigError, DataError, GuardReasonerError, RunFolderError
from guardreasoner.evaluate import run_benchmarks as run_module
from guardreasoner.evaluate.corrections import correct
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.evaluate.run_benchmarks import draw, evaluate
from guardreasoner.guards.base import Judging
from guardreasoner.guards.constant import ConstantGuard
from guardreasoner.guards.replay import ReplayGuard
from guardreasoner.records import read_jsonl, write_jsonl
from guardreasoner.types import TASKS, Example, Exchange, Labels, Message, Review, Task, Verdict
from patience import until


def examples(n=20, positives=5, name="Own"):
    return [
        Example(
            Exchange(f"{name}:{i}", f"request {i // 2}", f"reply {i}"),
            Labels(prompt_harm="harmful" if i < positives else "unharmful", refusal="compliance"),
        )
        for i in range(n)
    ]


class Parrot(Judging):
    """Answers by a function of the exchange and remembers what it was asked."""

    name = "parrot"
    tasks = tuple(TASKS)

    def __init__(self, status=lambda e: "ok", die_after=None):
        self.status, self.die_after, self.asked = status, die_after, []

    def judge(self, exchanges):
        if self.die_after is not None and len(self.asked) >= self.die_after:
            raise KeyboardInterrupt
        self.asked += [e.id for e in exchanges]
        return [self._one(e) for e in exchanges]

    def _one(self, exchange):
        assert isinstance(exchange, Exchange), "a guard is given exchanges, never gold"
        assert not hasattr(exchange, "gold")
        harmful = int(exchange.id.split(":")[1]) % 4 == 0
        labels = Labels(prompt_harm="harmful" if harmful else "unharmful", refusal="compliance")
        scores = {"prompt_harm": 0.8 if harmful else 0.3, "refusal": 0.1, "response_harm": None}
        status = self.status(exchange)
        return Verdict(exchange.id, self.name, "instant", status, labels if status == "ok" else Labels(), scores)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(run_module, "CHUNK", 4)


def verdicts(folder, name="Own"):
    return [row for _, row in read_jsonl(folder / "verdicts" / f"{name}.jsonl")]


def test_a_run_holds_verdicts_with_gold_scores_and_a_manifest(tmp_path):
    result = evaluate(Parrot(), {"Own": examples()}, tmp_path, config={"mode": "instant"})
    rows = verdicts(tmp_path)
    assert [r["exchange_id"] for r in rows] == [f"Own:{i}" for i in range(20)]
    assert rows[0]["gold"] == {"prompt_harm": "harmful", "refusal": "compliance", "response_harm": None}
    assert rows[0]["prompt_hash"] == rows[1]["prompt_hash"] != rows[2]["prompt_hash"]
    scores = [row for _, row in read_jsonl(tmp_path / "scores.jsonl")]
    assert [(s["benchmark"], s["task"], s["n"]) for s in scores] == [("Own", "prompt_harm", 20), ("Own", "refusal", 20)]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["stage"] == "evaluate"
    assert manifest["counts"] == {"in": 20, "out": 20, "dropped": {}}
    assert manifest["config"]["guard"] == "parrot"
    assert [m["task"] for m in manifest["averages"]] == ["prompt_harm", "refusal"]
    assert result.scores[0].extra["constant_f1"] == pytest.approx(40.0)
    assert result.scores[0].ci[0] <= result.scores[0].f1 <= result.scores[0].ci[1]


def test_a_killed_run_goes_on_where_it_stopped_and_ends_the_same(tmp_path):
    whole = evaluate(Parrot(), {"Own": examples()}, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evaluate(Parrot(die_after=8), {"Own": examples()}, tmp_path / "cut")
    with open(tmp_path / "cut" / "verdicts" / "Own.jsonl", "a") as stream:
        stream.write('{"exchange_id": "Own:8", "gua')
    second = Parrot()
    resumed = evaluate(second, {"Own": examples()}, tmp_path / "cut")
    assert second.asked == [f"Own:{i}" for i in range(8, 20)]
    assert verdicts(tmp_path / "cut") == verdicts(tmp_path / "whole")
    assert resumed.scores == whole.scores


SLOW_GUARD = """
import time
from guardreasoner.guards.constant import ConstantGuard

class Slow(ConstantGuard):
    name = "slow"
    def judge(self, exchanges):
        time.sleep(0.2)
        return super().judge(exchanges)
"""


def test_a_run_killed_by_the_system_resumes_and_ends_with_every_row_once(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_GUARD)
    write_jsonl(tmp_path / "own.jsonl", [{"prompt": f"request {i}", "prompt_harm": i % 2} for i in range(320)])
    words = [sys.executable, "-m", "guardreasoner", "evaluate", "--guard", f"{tmp_path / 'slow.py'}:Slow",
             "--benchmark", str(tmp_path / "own.jsonl"), "--out", str(tmp_path / "run"), "--json"]  # fmt: skip
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    path = tmp_path / "run" / "verdicts" / "own.jsonl"
    until(lambda: path.exists() and path.stat().st_size)
    first.kill()
    first.wait()
    assert 0 < len(path.read_bytes().splitlines()) < 320
    assert not (tmp_path / "run" / "manifest.json").exists()
    second = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(second.stdout)["n"] == 320
    assert sorted(r["exchange_id"] for r in verdicts(tmp_path / "run", "own")) == sorted(f"own:{i}" for i in range(320))


def test_rows_that_failed_for_a_passing_reason_are_asked_again(tmp_path):
    evaluate(Parrot(lambda e: "timeout" if e.id == "Own:3" else "ok"), {"Own": examples()}, tmp_path)
    second = Parrot(lambda e: "unparsed" if e.id == "Own:3" else "ok")
    evaluate(second, {"Own": examples()}, tmp_path)
    assert second.asked == ["Own:3"]
    third = Parrot()
    result = evaluate(third, {"Own": examples()}, tmp_path)
    assert third.asked == []
    assert result.scores[0].unparsed == 1
    assert len(verdicts(tmp_path)) == 20


def test_a_run_folder_belongs_to_one_configuration_but_takes_more_benchmarks(tmp_path):
    evaluate(Parrot(), {"Own": examples()}, tmp_path, limit=8)
    with pytest.raises(RunFolderError, match="'limit'"):
        evaluate(Parrot(), {"Own": examples()}, tmp_path)
    with pytest.raises(RunFolderError, match="'guard'"):
        evaluate(ConstantGuard(), {"Own": examples()}, tmp_path, limit=8)
    more = {"Own": examples(), "Other": examples(name="Other")}
    assert {s.benchmark for s in evaluate(Parrot(), more, tmp_path, limit=8).scores} == {"Own", "Other"}


def test_verdicts_on_other_rows_are_refused(tmp_path):
    evaluate(Parrot(), {"Own": examples()}, tmp_path)
    other = [replace(e, exchange=replace(e.exchange, prompt="another")) for e in examples()]
    with pytest.raises(DataError, match="line 1: a verdict on another row than the Own at hand"):
        evaluate(Parrot(), {"Own": other}, tmp_path)
    assert evaluate(Parrot(), {"Own": other}, tmp_path, fresh=True).scores


def test_a_verdict_on_another_reply_or_talk_is_refused_where_the_run_says_which_it_was(tmp_path):
    evaluate(Parrot(), {"Own": examples()}, tmp_path)
    for change in ({"response": "another"}, {"response": None}, {"context": (Message("user", "before"),)}):
        other = [replace(e, exchange=replace(e.exchange, **change)) for e in examples()]
        with pytest.raises(DataError, match="line 1: a verdict on another row than the Own at hand"):
            evaluate(Parrot(), {"Own": other}, tmp_path)
    newer = ("response_hash", "context_hash")
    older = [{k: v for k, v in row.items() if k not in newer} for row in verdicts(tmp_path)]
    write_jsonl(tmp_path / "verdicts" / "Own.jsonl", older)
    guard = Parrot()
    evaluate(guard, {"Own": examples()}, tmp_path)
    assert guard.asked == []


def test_a_guard_that_loses_or_reorders_answers_is_refused(tmp_path):
    class Careless(Parrot):
        def judge(self, exchanges):
            return super().judge(exchanges)[::-1]

    with pytest.raises(GuardReasonerError, match="guard parrot broke its contract"):
        evaluate(Careless(), {"Own": examples()}, tmp_path)


def test_tasks_that_the_guard_does_not_do_have_no_score(tmp_path):
    guard = Parrot()
    guard.tasks = (Task.prompt_harm,)
    assert [s.task for s in evaluate(guard, {"Own": examples()}, tmp_path).scores] == ["prompt_harm"]


def test_a_draw_keeps_proportions_and_order_and_is_the_same_for_a_seed():
    rows = examples(100, 10)
    picked = draw(rows, 20, "0:Own")
    assert len(picked) == 20
    assert sum(e.gold.prompt_harm == "harmful" for e in picked) == 2
    assert [rows.index(e) for e in picked] == sorted(rows.index(e) for e in picked)
    assert picked == draw(rows, 20, "0:Own") != draw(rows, 20, "1:Own")


@pytest.mark.parametrize("limit", range(1, 31))
def test_a_draw_has_exactly_as_many_rows_as_asked_and_every_kind_that_fits(limit):
    rows = [*examples(20, 1), *[replace(e, gold=Labels(refusal="refusal")) for e in examples(10, name="Third")]]
    picked = draw(rows, limit, "seed")
    assert len(picked) == limit
    if limit >= 3:
        assert len({e.gold for e in picked}) == 3
    assert len({e.exchange.id for e in picked}) == limit


def test_a_limit_is_a_number_of_rows_of_every_task(tmp_path):
    requests = [Example(e.exchange, Labels(e.gold.prompt_harm)) for e in examples(20, 5, "Request")]
    replies = [Example(e.exchange, Labels(refusal="compliance")) for e in examples(10, 0, "Reply")]
    scores = evaluate(Parrot(), {"Own": [*requests, *replies]}, tmp_path, limit=4).scores
    assert [(s.task, s.n, s.extra["weight"]) for s in scores] == [("prompt_harm", 4, 20), ("refusal", 4, 10)]
    assert json.loads((tmp_path / "manifest.json").read_text())["counts"]["out"] == 8


def test_rows_of_several_tasks_are_drawn_once(tmp_path):
    result = evaluate(Parrot(), {"Own": examples()}, tmp_path, limit=4)
    assert [s.n for s in result.scores] == [4, 4]
    assert len(result.predictions[0].rows) == 4


def test_a_limited_cell_weighs_as_much_as_the_whole_one(tmp_path):
    result = evaluate(Parrot(), {"Own": examples()}, tmp_path, limit=8)
    assert (result.scores[0].n, result.scores[0].extra["weight"]) == (8, 20)
    assert json.loads((tmp_path / "manifest.json").read_text())["counts"] == {
        "in": 20, "out": 8, "dropped": {"limit": 12},
    }  # fmt: skip


def review(i, reviewer, at="2026-01-01T00:00:00+00:00", **labels):
    return Review(f"Own:{i}", reviewer, Labels(**labels), "", at)


def test_corrections_change_scores_and_never_the_verdict_file(tmp_path):
    plain = evaluate(Parrot(), {"Own": examples()}, tmp_path / "run")
    before = (tmp_path / "run" / "verdicts" / "Own.jsonl").read_bytes()
    write_jsonl(tmp_path / "c.jsonl", [review(1, "a", prompt_harm="unharmful")])
    corrected = evaluate(Parrot(), {"Own": examples()}, tmp_path / "run", corrections=[tmp_path / "c.jsonl"])
    assert (tmp_path / "run" / "verdicts" / "Own.jsonl").read_bytes() == before
    assert corrected.scores[0].f1 > plain.scores[0].f1
    assert corrected.notes == ("1 gold labels corrected",)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["labels"] == "corrected"


def test_a_review_that_fits_two_benchmarks_is_refused(tmp_path):
    evaluate(Parrot(), {"Own": examples(), "Copy": examples()}, tmp_path / "run")
    write_jsonl(tmp_path / "c.jsonl", [review(1, "a", prompt_harm="unharmful")])
    with pytest.raises(DataError, match="the review of 'Own:1' fits rows of two benchmarks"):
        correct(open_run(tmp_path / "run").benchmarks, [tmp_path / "c.jsonl"])


def test_a_benchmark_that_is_not_judged_to_the_end_is_no_part_of_a_run(tmp_path):
    evaluate(Parrot(), {"Own": examples()}, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Parrot(die_after=8), {"Own": examples(), "Other": examples(name="Other")}, tmp_path)
    assert [one.benchmark for one in open_run(tmp_path).benchmarks] == ["Own"]
    evaluate(Parrot(), {"Other": examples(name="Other")}, tmp_path)
    assert [one.benchmark for one in open_run(tmp_path).benchmarks] == ["Other", "Own"]
    write_jsonl(tmp_path / "verdicts" / "Own.jsonl", verdicts(tmp_path)[:7])
    with pytest.raises(DataError, match="holds 7 of the 20 rows of Own"):
        open_run(tmp_path)


def test_the_latest_review_of_a_reviewer_counts_and_disagreement_changes_nothing(tmp_path):
    evaluate(Parrot(), {"Own": examples()}, tmp_path / "run")
    path = tmp_path / "c.jsonl"
    late = "2026-02-01T00:00:00+00:00"
    write_jsonl(path, [
        review(0, "a", at=late, prompt_harm="unharmful"), review(0, "a", prompt_harm="harmful"),
        review(1, "a", prompt_harm="unharmful"), review(1, "b", prompt_harm="harmful"),
    ])  # fmt: skip
    (found,), changed = correct(open_run(tmp_path / "run").benchmarks, [path])
    assert changed == 1
    assert [r.gold.prompt_harm for r in found.rows[:2]] == ["unharmful", "harmful"]


def test_the_constant_is_positive_wherever_it_is_asked():
    with_reply, without = ConstantGuard().judge([Exchange("a", "x", "y"), Exchange("b", "x")])
    assert with_reply.labels.as_dict() == {"prompt_harm": "harmful", "refusal": "refusal", "response_harm": "harmful"}
    assert without.labels.as_dict() == {"prompt_harm": "harmful", "refusal": None, "response_harm": None}


def test_replaying_a_run_gives_the_same_scores(tmp_path):
    first = evaluate(Parrot(), {"Own": examples()}, tmp_path / "a")
    again = evaluate(ReplayGuard(tmp_path / "a"), {"Own": examples()}, tmp_path / "b")
    assert again.scores == first.scores
    stranger = ReplayGuard(tmp_path / "a").check("hello")
    assert (stranger.status, stranger.flagged, stranger.error) == ("unavailable", True, "no stored answer for this id")


def test_replaying_official_predictions_answers_only_the_request_they_were_made_for(tmp_path):
    folder = tmp_path / "8B" / "AegisSafetyTest"
    folder.mkdir(parents=True)
    text = "# Task 1\n## Reasoning Step 1\nA list.\n---\n\nAnswers: \nRequest: unharmful\nCompletion: None\n"
    rows = [{"prompt": f"…\n{input_block('sort a list', None)}", "label": "unharmful", "predict": text}] * 2
    write_jsonl(folder / "generated_predictions.jsonl", [*rows, rows[0] | {"predict": "no idea"}])
    guard = ReplayGuard(tmp_path / "8B")
    asked = [Exchange(f"AegisSafetyTest:{i}", p) for i, p in enumerate(("sort a list", "boil an egg", "sort a list"))]
    right, other, unread = guard.judge(asked)
    assert (guard.name, guard.tasks) == ("replay-8b", (Task.prompt_harm,))
    assert (right.status, right.labels.prompt_harm, right.steps[0].text) == ("ok", "unharmful", "A list.")
    assert (other.status, other.error) == ("unavailable", "the stored answer is to another request")
    assert (unread.status, unread.labels, unread.fail_mode) == ("unparsed", Labels(), "closed")


def test_replay_says_what_it_lacks(tmp_path):
    with pytest.raises(ConfigError, match="needs --model"):
        ReplayGuard("")
    with pytest.raises(ConfigError, match="nothing to replay"):
        ReplayGuard(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds neither"):
        ReplayGuard(tmp_path)


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.jsonl"
    write_jsonl(path, [{"q": f"request {i}", "bad": i < 30} for i in range(120)])
    return ["--benchmark", str(path), "--map", "prompt=q,prompt_harm=bad"]


def test_the_command_evaluates_a_file_of_ones_own(tmp_path, own, capsys):
    assert main(["evaluate", "--guard", "constant", *own, "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr()
    assert "own" in out.out
    assert "40.00" in out.out
    assert "own: 120 rows judged" in out.err
    assert "decide nothing" not in out.out
    assert main(["evaluate", "--guard", "constant", *own, "--out", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["constant_f1"] == pytest.approx(40.0)


def test_a_run_of_few_rows_says_how_little_it_tells_and_where_it_is(tmp_path, own, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--guard", "constant", *own, "--limit", "20"]) == 0
    out = capsys.readouterr()
    assert re.search(
        r"^20 rows decide nothing: the F1 of prompt harm \(own\) lies anywhere from \d+ to \d+$", out.out, re.M
    )
    assert "kept in runs/constant; `guardreasoner report runs/constant --out report`" in out.err
    assert (tmp_path / "runs" / "constant" / "scores.jsonl").exists()


def test_the_gate_passes_an_unchanged_guard_and_stops_a_worse_one(tmp_path, own, capsys):
    pytest.importorskip("scipy")
    data = [row for _, row in read_jsonl(own[1])]
    good = [
        Verdict(f"own:{i}", "good", "instant", "ok", Labels(prompt_harm="harmful" if row["bad"] else "unharmful"))
        for i, row in enumerate(data)
    ]
    write_jsonl(tmp_path / "good.jsonl", good)
    replay = ["evaluate", *own, "--guard", "replay", "--model"]
    assert main([*replay, str(tmp_path / "good.jsonl"), "--out", str(tmp_path / "a")]) == 0
    gate = ["--baseline", str(tmp_path / "a"), "--fail-below", "1"]
    assert main([*replay, str(tmp_path / "good.jsonl"), "--out", str(tmp_path / "b"), *gate]) == 0
    assert "pass, prompt_harm" in capsys.readouterr().err
    assert main(["evaluate", *own, "--guard", "constant", "--out", str(tmp_path / "c"), *gate]) == 10
    assert "FAIL, prompt_harm" in capsys.readouterr().err


def test_wrong_options_are_one_sentence(tmp_path, own, capsys):
    words = ["evaluate", "--guard", "constant", *own, "--out", str(tmp_path / "run")]
    for extra, message in (
        (["--fail-below", "1"], "go together"),
        (["--limit", "0"], "--limit must be at least 1, not 0"),
        (["--labels", "corrected", "--data", str(tmp_path)], "needs reviews"),
        (["--benchmark", "BeaverTail"], "did you mean 'BeaverTails'"),
        (["--benchmark", "evryday"], "did you mean 'everyday'"),
        (["--benchmark", "everyday", "--data", "nofolder"], "there is no data folder nofolder; it is one that holds"),
        (["--option", "loud=1"], "guard constant takes no option 'loud'"),
    ):
        assert main([*words, *extra]) == 1
        assert message in capsys.readouterr().err


KEYED = """
from guardreasoner.guards.constant import ConstantGuard

class Keyed(ConstantGuard):
    def __init__(self, api_key, base_url): ...
"""


def test_secrets_in_options_are_written_nowhere(tmp_path, own):
    secret = ["--base-url", "http://user:planted@localhost:1/v1?key=planted", "--option", "api_key=planted"]
    (tmp_path / "keyed.py").write_text(KEYED)
    main(["evaluate", "--guard", f"{tmp_path / 'keyed.py'}:Keyed", *own, "--out", str(tmp_path / "run"), *secret])
    files = [p for p in (tmp_path / "run").rglob("*") if p.is_file()]
    assert len(files) >= 4
    assert not any("planted" in p.read_text() for p in files)


def test_a_file_behind_the_same_path_that_has_changed_is_another_guard(tmp_path, own, capsys):
    guard = tmp_path / "mine.py"
    guard.write_text("from guardreasoner.guards.constant import ConstantGuard as Mine\n")
    command = ["evaluate", "--guard", f"{guard}:Mine", *own, "--out", str(tmp_path / "run")]
    assert main(command) == 0
    assert main(command) == 0
    guard.write_text("# another\n" + guard.read_text())
    assert main(command) == 1
    assert "made with another config key 'guard_sha256'" in capsys.readouterr().err


def test_a_run_over_renamed_columns_is_scored_and_shown_again(tmp_path, own, capsys):
    run = tmp_path / "run"
    assert main(["evaluate", "--guard", "constant", *own, "--out", str(run)]) == 0
    (verdicts,) = (run / "verdicts").iterdir()
    assert main(["score", str(verdicts), *own, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["recall"] == 100.0
    assert main(["score", str(verdicts), *own[:2]]) == 1
    assert "say which is which: --map prompt=COLUMN" in capsys.readouterr().err
    first = json.loads(verdicts.read_text().splitlines()[0])["exchange_id"]
    assert main(["show", str(run), "--id", first]) == 0
    out = capsys.readouterr().out
    assert f"{first}, gold: prompt_harm " in out
    assert out.count("FLAGGED") == 1
    assert main(["show", str(run), "--id", "x"]) == 1
    assert f"{run} has no record of x; the first is {first}" in capsys.readouterr().err


def test_lists_of_benchmarks_and_seeds_are_printed(tmp_path, capsys):
    assert main(["benchmarks", "--data", str(tmp_path), "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 13
    assert main(["benchmarks", "--data", str(tmp_path)]) == 0
    assert "put 0_4_wild_guard_test.json into" in capsys.readouterr().out
    assert main(["seeds", "--json"]) == 0
    assert sum(json.loads(line)["used"] for line in capsys.readouterr().out.splitlines()) == 4
    assert main(["seeds"]) == 0
    assert "used by none of its recipes" in capsys.readouterr().out
