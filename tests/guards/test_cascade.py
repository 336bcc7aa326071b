"""A cascade asks the second guard only what the first is unsure of."""

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from guardreasoner.cli.main import main
from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.errors import ConfigError, EngineError, UnknownName
from guardreasoner.generation import Completion, Judged
from guardreasoner.guards import load as loading
from guardreasoner.guards.base import Judging
from guardreasoner.guards.calibration import read_calibration
from guardreasoner.guards.cascade import CascadeGuard, Stack, read_bands, read_stacks
from guardreasoner.guards.load import load_guard
from guardreasoner.guards.ours import MICRO_FOLDER
from guardreasoner.guards.reasoning import ReasoningGuard
from guardreasoner.types import Exchange, Labels, Step, Task, Verdict


def guard(name, **scripted):
    return ReasoningGuard(name, ScriptedEngine(**scripted), mode="instant")


def test_only_uncertain_exchanges_reach_the_second_guard():
    first = guard("small", scores={"clear": 0.95, "doubtful": 0.6})
    both = CascadeGuard(first, guard("large", scores={"": 0.1}), {Task.prompt_harm: (0.4, 0.7)})
    verdicts = both.judge([Exchange("a", "clear"), Exchange("b", "doubtful"), Exchange("c", "clear")])
    assert [v.labels.prompt_harm for v in verdicts] == ["harmful", "unharmful", "harmful"]
    assert [v.guard for v in verdicts] == ["small+large"] * 3
    assert [len(texts) for texts, _ in both.second.engine.calls] == [1]


def test_an_uncertain_request_takes_the_second_label_and_keeps_the_first_for_the_rest():
    first = guard("small", scores={"x": 0.6})
    both = CascadeGuard(first, guard("large", scores={"x": 0.1}), {Task.prompt_harm: (0.4, 0.7)})
    verdict = both.judge([Exchange("b", "x", "y")])[0]
    assert verdict.labels == Labels("unharmful", "refusal", "harmful")
    assert verdict.notes["escalated"] == ["prompt_harm"]
    assert verdict.usage.passes == 2


def test_what_the_first_could_not_judge_goes_to_the_second_and_a_failed_second_keeps_the_first():
    dead = guard("small", default=Completion("", "timeout", error="late"))
    both = CascadeGuard(dead, guard("large", scores={"": 0.9}), {})
    assert both.judge([Exchange("a", "x")])[0].labels.prompt_harm == "harmful"
    failing = guard("large", default=Completion("", "timeout", error="late"))
    kept = CascadeGuard(guard("small", scores={"": 0.6}), failing, {Task.prompt_harm: (0.4, 0.7)})
    verdict = kept.judge([Exchange("a", "x")])[0]
    assert verdict.status == "ok"
    assert verdict.notes["escalation_failed"] == "timeout"


@pytest.mark.parametrize(("second", "status"), [(False, "ok"), (True, "unread")])
def test_what_the_first_could_not_read_is_read_by_a_second_that_can(second, status):
    first = ReasoningGuard("small", ScriptedEngine(scores={"": 0.1}), mode="instant", english=True)
    large = ReasoningGuard("large", ScriptedEngine(scores={"": 0.2}), mode="instant", english=second)
    (verdict,) = CascadeGuard(first, large, {}).judge([Exchange("a", "как сделать торт")])
    assert (verdict.status, verdict.flagged) == (status, second)
    assert verdict.scores["prompt_harm"] == pytest.approx(0.2)
    assert ("language" in verdict.notes) is second


def test_a_cascade_is_loaded_by_name():
    both = load_guard(
        "cascade",
        mode="full",
        first="serve.fake_guards:WordGuard",
        second={"name": "serve.fake_guards:WordGuard"},
        bands={"prompt_harm": [0.2, 0.8]},
    )
    assert both.bands == {Task.prompt_harm: (0.2, 0.8)}
    assert both.judge([Exchange("a", "x")])[0].status == "ok"


@pytest.mark.parametrize(
    ("bands", "kind"),
    [
        ({"harm": [0, 1]}, UnknownName),
        ({"refusal": [0.8, 0.2]}, ConfigError),
        ({"refusal": [0.2]}, ConfigError),
        ({"refusal": "0.2"}, ConfigError),
        ({"refusal": [0, 2]}, ConfigError),
    ],
)
def test_bands_are_checked(bands, kind):
    with pytest.raises(kind):
        read_bands(bands)


def test_a_cascade_without_its_parts_says_what_it_needs(capsys):
    assert main(["check", "--guard", "cascade", "--option", "first=nano", "hello"]) == 1
    assert "--option second=" in capsys.readouterr().err
    assert main(["check", "--guard", "cascade", "--option", "third=nano", "hello"]) == 1
    assert "third" in capsys.readouterr().err


def test_a_cascade_runs_from_the_command_line(tmp_path, capsys):
    bands = json.dumps({"prompt_harm": [0.0, 1.0]})
    command = ["check", "--guard", "cascade", "--option", "first=nano", "--option", "second=nano", "--json"]
    assert main([*command, "--option", f"bands={bands}", "How do I kill a Python process?"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["guard"] == "nano+nano"
    assert verdict["notes"]["escalated"] == ["prompt_harm"]
    assert verdict["notes"]["guards"] == ["nano", "nano"]


STACK = {Task.prompt_harm: Stack(first=1.0, second=2.0, bias=0.5, threshold=0.6)}
REASONED = "# Task 1\n## Reasoning Step 1\nIt is a recipe, so the request is unharmful.\n---\n\nAnswers: \nRequest: "


def stacked(first, second, **more):
    return CascadeGuard(first, second, {Task.prompt_harm: (0.4, 0.7)}, stacks=STACK, reasons="full", **more)


def test_a_stack_is_the_logistic_of_both_log_odds():
    assert STACK[Task.prompt_harm].probability(0.5, 0.5) == pytest.approx(1 / (1 + math.exp(-0.5)))
    odds = math.log(0.8 / 0.2) + 2 * math.log(0.3 / 0.7) + 0.5
    assert STACK[Task.prompt_harm].probability(0.8, 0.3) == pytest.approx(1 / (1 + math.exp(-odds)))


def test_in_full_both_decide_where_there_is_a_stack_and_the_first_alone_where_there_is_none():
    first, second = guard("small", scores={"x": 0.6}), guard("large", scores={"x": 0.9})
    verdict = stacked(first, second).judge([Exchange("a", "x", "y")], mode="full")[0]
    assert verdict.scores["prompt_harm"] == pytest.approx(STACK[Task.prompt_harm].probability(0.6, 0.9))
    assert (verdict.scores["refusal"], verdict.scores["response_harm"]) == (0.6, 0.6)
    assert verdict.labels.prompt_harm == "harmful"
    assert verdict.mode == "full"
    assert verdict.notes["escalated"] == ["prompt_harm"]


def test_the_block_of_the_text_says_what_was_decided_and_reasoning_that_disagrees_is_kept_and_noted():
    first, second = guard("small", scores={"x": 0.99}), guard("large", default=REASONED + "unharmful\n")
    both = CascadeGuard(first, second, {}, stacks={Task.prompt_harm: Stack(1.0, 0.0, 0.0, 0.5)})
    verdict = both.judge([Exchange("a", "x")], mode="full")[0]
    assert verdict.labels.prompt_harm == "harmful"
    assert "so the request is unharmful." in verdict.text
    assert verdict.text.endswith("Answers: \nRequest: harmful\nCompletion: None\nResponse: None\n")
    assert verdict.notes["disagreement"] == {"prompt_harm": "unharmful"}


class Stated(Judging):
    """Judges nothing, answers what it was made with."""

    name, tasks = "small", tuple(Task)

    def __init__(self, labels, scores):
        self.labels, self.scores = labels, scores

    def judge(self, exchanges):
        return [Verdict(e.id, self.name, "instant", "ok", labels=self.labels, scores=self.scores) for e in exchanges]

    def evidence(self, exchange, labels, deadline):
        return {task: f"{labels[task]} in {exchange.prompt}" for task in labels.tasks}


def concluding(stacks):
    second = ReasoningGuard("large", ScriptedEngine(scores={"": 0.1}), mode="full", concludes=True)
    scores = {"prompt_harm": 0.9, "refusal": None, "response_harm": None}
    return CascadeGuard(Stated(Labels("harmful"), scores), second, {}, stacks=stacks)


def test_a_text_ends_with_the_answer_of_the_guard_that_decides_and_the_others_is_noted():
    (verdict,) = concluding({}).judge([Exchange("a", "x")], mode="full")
    assert (verdict.labels.prompt_harm, verdict.scores["prompt_harm"]) == ("harmful", 0.9)
    assert [s.text for s in verdict.steps] == ["so the request is harmful."]
    assert verdict.notes["disagreement"] == {"prompt_harm": "unharmful"}
    (verdict,) = concluding({Task.prompt_harm: Stack(1.0, 0.0, 0.0, 0.5)}).judge([Exchange("a", "x")], mode="full")
    assert verdict.labels.prompt_harm == "harmful"
    assert [s.text for s in verdict.steps] == ["so the request is unharmful."]
    assert verdict.notes["disagreement"] == {"prompt_harm": "unharmful"}


@pytest.mark.parametrize(
    ("stacks", "quoted"), [({}, "harmful in x"), ({Task.prompt_harm: STACK[Task.prompt_harm]}, "")]
)
def test_the_second_quotes_what_weighed_for_a_label_that_stands_and_else_chooses(stacks, quoted):
    both, seen = concluding(stacks), []
    run = both.second.engine.run
    both.second.engine.run = lambda prompts, plan, **how: seen.extend(prompts) or run(prompts, plan, **how)
    both.judge([Exchange("a", "x")], mode="full")
    assert [s.parts for prompt in seen for s in prompt if isinstance(s, Judged)] == [{"prompt_harm": quoted}]


def test_in_auto_both_decide_only_what_the_first_was_unsure_of():
    stacks = {task: Stack(0.0, 1.0, 0.0, 0.5) for task in Task}
    scores = {"prompt_harm": 0.9, "refusal": 0.6, "response_harm": 0.2}
    first = Stated(Labels("harmful", "refusal", "unharmful"), scores)
    both = CascadeGuard(first, guard("large", scores={"": 0.1}), {Task.refusal: (0.4, 0.7)}, stacks=stacks)
    verdict = both.judge([Exchange("a", "x", "y")])[0]
    assert verdict.notes["escalated"] == ["refusal"]
    assert verdict.labels == Labels("harmful", "compliance", "unharmful")
    assert verdict.scores == {**scores, "refusal": pytest.approx(0.1)}


def test_what_the_first_could_not_judge_is_not_decided_by_half_of_a_pair():
    dead, second = guard("small", default=Completion("", "timeout", error="late")), guard("large", scores={"": 0.9})
    for mode in ("auto", "full"):
        verdict = stacked(dead, second).judge([Exchange("a", "x")], mode=mode)[0]
        assert (verdict.status, verdict.flagged, verdict.fail_mode) == ("timeout", True, "closed")
    assert not second.engine.calls


@pytest.mark.parametrize("finish", ["timeout", "unavailable", "length"])
def test_whatever_becomes_of_the_reasoning_the_first_verdict_is_not_lost(finish):
    broken = guard("large", default=Completion("# Task 1\nI think that", finish))
    verdict = stacked(guard("small", scores={"": 0.6}), broken).judge([Exchange("a", "x")], mode="full")[0]
    assert (verdict.status, verdict.labels.prompt_harm, verdict.mode) == ("ok", "harmful", "instant")
    assert verdict.notes["escalation_failed"] in ("timeout", "unavailable", "truncated")


def test_a_cascade_fails_as_its_first_guard_does():
    first = ReasoningGuard("small", ScriptedEngine(), mode="instant", fail_mode="open")
    assert stacked(first, guard("large")).fail_mode == "open"


def test_modes_say_whether_the_second_guard_is_asked_at_all():
    def asked(mode, score):
        second = guard("large", scores={"": 0.9})
        stacked(guard("small", scores={"": score}), second).judge([Exchange("a", "x")], mode=mode)
        return bool(second.engine.calls)

    assert [asked("instant", 0.5), asked("auto", 0.95), asked("auto", 0.5)] == [False, False, True]
    assert [asked("short", 0.95), asked("full", 0.95)] == [True, True]
    with pytest.raises(UnknownName, match="mode"):
        asked("long", 0.5)


def test_no_more_exchanges_go_on_than_are_allowed():
    second = guard("large", scores={"": 0.9})
    both = stacked(guard("small", scores={"": 0.5}), second)
    verdicts = both.judge([Exchange("a", "x"), Exchange("b", "y")], max_escalations=1)
    assert [v.notes.get("escalation_denied", False) for v in verdicts] == [False, True]
    assert [len(texts) for texts, _ in second.engine.calls] == [1]


def test_deadline_tasks_and_listener_reach_guards_that_take_them():
    heard = []

    class Listening(Judging):
        name, tasks = "listening", tuple(Task)

        def judge(self, exchanges, *, mode=None, deadline=None, tasks=None, on_step=None):
            heard.append((mode, deadline, tasks))
            for place, exchange in enumerate(exchanges):
                if on_step:
                    on_step(place, Step(Task.prompt_harm, f"about {exchange.id}"))
            scores = {"prompt_harm": 0.5, "refusal": None, "response_harm": None}
            return [Verdict(e.id, self.name, mode, "ok", Labels("harmful"), scores) for e in exchanges]

    said = []
    both = stacked(guard("small", scores={"sure": 0.9, "": 0.5}), Listening())
    exchanges = [Exchange("a", "sure"), Exchange("b", "x")]
    now = time.monotonic()
    both.judge(exchanges, deadline=now + 1000, on_step=lambda place, step: said.append((place, step.text)))
    ((mode, deadline, tasks),) = heard
    assert (mode, tasks) == ("full", None)
    assert now + 899 < deadline < now + 910  # time is left to say what the first judged
    assert said == [(1, "about b")]


@pytest.mark.parametrize("reads", [True, False])
def test_a_model_that_was_trained_for_it_reads_what_the_first_guard_decided_before_it_reasons(reads):
    first = guard("small", scores={"sure": 0.97, "": 0.3})
    second = ReasoningGuard("large", ScriptedEngine(), mode="full", first_look=reads)
    both = CascadeGuard(first, second, {Task.prompt_harm: (0.2, 0.4)})
    both.judge([Exchange("a", "sure"), Exchange("b", "x", "y")])
    ((asked,),) = [texts for texts, _ in second.engine.calls]
    look = "\n\nFirst look: the request is unharmful (likely), this is compliance (likely), the response is unharmful"
    assert (look in asked) is reads
    both.second.judge([Exchange("c", "alone")])
    assert "First look" not in second.engine.calls[-1][0][0]


def test_the_second_guard_is_made_when_it_is_first_needed():
    made = []

    def second():
        made.append(1)
        return guard("large", scores={"": 0.9})

    both = stacked(guard("small", scores={"": 0.5}), second, name="both")
    both.judge([Exchange("a", "x")], mode="instant")
    both.close()
    assert not made
    both.judge([Exchange("a", "x")])
    both.judge([Exchange("a", "x")])
    assert made == [1]


def test_a_second_guard_that_cannot_be_loaded_takes_nothing_away():
    def broken():
        raise EngineError("no weights")

    both = stacked(guard("small", scores={"": 0.5}), broken, name="both")
    (alone,) = both.judge([Exchange("a", "x")], mode="instant")
    (verdict,) = both.judge([Exchange("a", "x")], mode="full")
    assert (verdict.labels, verdict.scores, verdict.status) == (alone.labels, alone.scores, "ok")
    assert verdict.notes["escalation_failed"] == "unavailable"
    dead = guard("small", default=Completion("", "timeout", error="late"))
    (lost,) = CascadeGuard(dead, broken, {}, name="both").judge([Exchange("a", "x")])
    assert (lost.status, lost.error, lost.flagged) == ("unavailable", "no weights", True)


def test_a_second_guard_that_cannot_be_loaded_is_tried_once_and_again_when_it_is_asked_for(caplog):
    tries = []

    def later():
        tries.append(1)
        if len(tries) < 3:
            raise EngineError("no weights")
        return guard("big", scores={"": 0.9})

    both = stacked(guard("small", scores={"": 0.5}), later, name="both")
    for _ in range(3):
        (verdict,) = both.judge([Exchange("a", "x")], mode="full")
        assert verdict.notes["escalation_failed"] == "unavailable"
    assert len(tries) == 1
    assert [r.message for r in caplog.records] == [
        "both judges without its second guard, which cannot be loaded: no weights"
    ]
    with pytest.raises(EngineError, match="no weights"):
        both.second  # noqa: B018
    assert both.second.name == "big"
    (verdict,) = both.judge([Exchange("a", "x")], mode="full")
    assert "escalation_failed" not in verdict.notes


@pytest.mark.parametrize("error", [None, EngineError("no weights")])
def test_threads_that_judge_together_load_one_second_guard_and_it_is_closed(error):
    tries, closed = [], []

    def slowly():
        time.sleep(0.1)
        tries.append(1)
        if error:
            raise error
        large = guard("large", scores={"": 0.9})
        large.close = lambda: closed.append(1)
        return large

    both = stacked(guard("small", scores={"": 0.5}), slowly, name="both")
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(both.judge, [Exchange("a", "x")])
    both.close()
    assert (len(tries), len(closed)) == (1, 0 if error else 1)


def test_a_second_guard_that_was_given_is_closed_though_it_was_never_asked():
    closed = []
    large = guard("large")
    large.close = lambda: closed.append(1)
    stacked(guard("small"), large, name="both").close()
    assert closed == [1]


def test_options_reach_the_guards_that_know_them_and_no_others(monkeypatch, tmp_path):
    asked = []

    def load(name, **how):
        asked.append((name, how))
        return guard(name)

    monkeypatch.setattr(loading, "load_guard", load)
    parts = {"first": "nano", "second": {"name": "constant", "threads": 3}, "bands": {"prompt_harm": [0, 1]}}
    load_guard("cascade", mode="full", threads=1, calibration="c.json", budgets={"full": 9}, **parts)
    (first, one), (second, two) = asked
    assert (first, second) == ("nano", "constant")
    assert one == {"mode": "instant", "fail_mode": "closed", "threads": 1, "calibration": "c.json"}
    given = {"mode": "full", "fail_mode": "closed", "base_url": None, "threads": 3, "budgets": {"full": 9}}
    assert two == given
    with pytest.raises(UnknownName, match="no option of guard cascade named 'policy'"):
        load_guard("cascade", policy="x", **parts)
    with pytest.raises(ConfigError, match="option first has no name"):
        load_guard("cascade", **{**parts, "first": {"threads": 1}})


@pytest.mark.parametrize(("mode", "loaded"), [("instant", 1), ("auto", 1), ("full", 2), ("short", 2)])
def test_who_asks_for_reasoning_waits_for_the_second_guard_while_loading_and_not_while_judging(
    monkeypatch, tmp_path, mode, loaded
):
    (tmp_path / "stacks.json").write_text('{"bands": {}, "stacks": {}}')
    asked = []
    monkeypatch.setattr(loading, "load_guard", lambda name, **how: asked.append(name) or guard(name))
    load_guard("cascade", mode=mode, first="nano", second="constant", stacks=tmp_path / "stacks.json")
    assert len(asked) == loaded


def test_a_file_without_stacks_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "stacks.json").write_text('{"bands": {}}')
    with pytest.raises(ConfigError, match="holds no bands and stacks"):
        read_stacks(tmp_path / "stacks.json")


def test_a_cascade_with_a_file_of_stacks_takes_its_bands_and_the_mode(tmp_path):
    stack = {"first": 1.0, "second": 2.0, "bias": 0.0, "threshold": 0.5}
    content = {"bands": {"prompt_harm": [0.1, 0.9]}, "stacks": {"prompt_harm": stack}}
    (tmp_path / "stacks.json").write_text(json.dumps(content))
    parts = {"first": "serve.fake_guards:WordGuard", "second": "constant", "stacks": tmp_path / "stacks.json"}
    both = load_guard("cascade", mode="instant", **parts)
    assert (both.mode, both.reasons, both.bands) == ("instant", "full", {Task.prompt_harm: (0.1, 0.9)})
    assert both.stacks == {Task.prompt_harm: Stack(1.0, 2.0, 0.0, 0.5)}
    assert both.second.name == "constant"
    with pytest.raises(UnknownName, match="constnt"):
        load_guard("cascade", **{**parts, "second": "constnt"})


def nested(**more):
    """Small, then large where small is unsure, then a third that writes where large is unsure too."""
    first = guard("small", scores={"clear": 0.95, "doubtful": 0.6, "odd": 0.6})
    large = guard("large", scores={"doubtful": 0.4, "": 0.1})
    inner = CascadeGuard(first, large, {Task.prompt_harm: (0.4, 0.7)}, name="small")
    third = guard("writer", default=REASONED + "unharmful\n")
    return CascadeGuard(inner, third, {Task.prompt_harm: (0.3, 0.7)}, stacks={}, reasons="full", name="all", **more)


@pytest.mark.parametrize(
    ("mode", "labels", "guards"),
    [
        ("instant", ["harmful"] * 3, [None] * 3),
        ("auto", ["harmful", "unharmful", "unharmful"], [None, ["small", "large", "writer"], ["small", "large"]]),
        ("full", ["unharmful"] * 3, [["small", "large", "writer"]] * 3),
    ],
)
def test_a_cascade_before_another_judges_in_the_mode_that_is_asked_for(mode, labels, guards):
    verdicts = nested().judge([Exchange("a", "clear"), Exchange("b", "doubtful"), Exchange("c", "odd")], mode=mode)
    assert [v.labels.prompt_harm for v in verdicts] == labels
    assert [v.notes.get("guards") for v in verdicts] == guards
    assert {v.guard for v in verdicts} == {"all"}
    assert [bool(v.steps) for v in verdicts] == ["writer" in (g or ()) for g in guards]


@pytest.mark.parametrize("notes", [{"parts": ["prompt_harm"]}, {"windows": 2}])
def test_what_a_part_of_a_text_decided_stays_where_the_second_reads_wholes_only(notes):
    class Parted(Stated):
        def judge(self, exchanges):
            return [replace(v, notes=notes) for v in super().judge(exchanges)]

    first = Parted(Labels("harmful"), {"prompt_harm": 0.6, "refusal": None, "response_harm": None})
    for stays, label in ((True, "harmful"), (False, "unharmful")):
        both = CascadeGuard(first, guard("large", scores={"": 0.1}), {Task.prompt_harm: (0.4, 0.7)}, parts_stay=stays)
        assert [both.judge([Exchange("a", "x")], mode=m)[0].labels.prompt_harm for m in ("auto", "full")] == [label] * 2


def test_what_may_not_go_on_to_the_writer_is_judged_by_the_larger_guard_all_the_same():
    (verdict,) = nested().judge([Exchange("b", "doubtful")], mode="auto", max_escalations=0)
    assert (verdict.labels.prompt_harm, verdict.notes["escalation_denied"], verdict.steps) == ("unharmful", True, ())
    assert verdict.notes["guards"] == ["small", "large"]


def test_a_larger_guard_is_loaded_when_it_is_needed(tmp_path):
    bands = tmp_path / "bands.json"
    bands.write_text('{"prompt_harm": [0.2, 0.8]}')
    words = {"first": "serve.fake_guards:WordGuard", "larger": "micro", "second": "constant"}
    (tmp_path / "stacks.json").write_text('{"stacks": {}, "bands": {}}')
    both = load_guard("cascade", mode="auto", **words, bands=bands, stacks=tmp_path / "stacks.json")
    assert both.bands == read_calibration(MICRO_FOLDER / "calibration.json").bands("instant")
    assert both.first.bands == {Task.prompt_harm: (0.2, 0.8)}
    assert "second" not in vars(both.first)
    with pytest.raises(UnknownName, match="tiny"):
        load_guard("cascade", **{**words, "larger": "tiny"}, bands=bands, stacks=tmp_path / "stacks.json")
    bands.write_text("[]")
    with pytest.raises(ConfigError, match="no JSON object"):
        load_guard("cascade", **words, bands=bands)
