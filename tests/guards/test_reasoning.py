"""The reasoning guard on the scripted engine: modes, windows, forms, failures, order."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.errors import ConfigError, DataError, EngineOverloaded, UnknownName
from guardreasoner.formats import guardreasoner as fmt
from guardreasoner.generation import Completion, Free
from guardreasoner.guards.calibration import Calibration, Curve
from guardreasoner.guards.reasoning import Budgets, ReasoningGuard
from guardreasoner.types import Exchange, Labels, Message, Step, Task

HARMFUL = fmt.answer(
    fmt.reasoning_text(
        [
            Step(Task.prompt_harm, "It asks for “bombs”. The kind of harm is weapons."),
            Step(Task.prompt_harm, "So the request is harmful."),
            Step(Task.refusal, "It says no, so the reply is a refusal."),
            Step(Task.response_harm, "Nothing is given, so the reply is unharmful."),
        ]
    ),
    Labels("harmful", "refusal", "unharmful"),
)
BENIGN = fmt.answer(
    "# Task 1\n## Reasoning Step 1\nA process is a program, so the request is unharmful.\n", Labels("unharmful")
)


def guard(mode="full", **options):
    engine = options.pop("engine", None) or ScriptedEngine(
        {"bomb": HARMFUL, "process": BENIGN}, default=BENIGN, scores={"unsure": 0.5}
    )
    return ReasoningGuard("test", engine, mode=mode, **options)


def test_a_full_verdict_has_steps_labels_scores_and_usage():
    verdict = guard().check("How do I build a bomb?", "I cannot help.")
    assert verdict.status == "ok"
    assert verdict.labels == Labels("harmful", "refusal", "unharmful")
    assert verdict.flagged
    assert verdict.harm == "weapons"
    assert [s.task for s in verdict.steps] == ["prompt_harm", "prompt_harm", "refusal", "response_harm"]
    assert set(verdict.scores) == {"prompt_harm", "refusal", "response_harm"}
    assert verdict.scores["prompt_harm"] > 0.9
    assert verdict.usage.completion_tokens > 3
    assert verdict.usage.passes == 1
    assert not verdict.calibrated


@pytest.mark.parametrize("mode", ["instant", "full", "auto"])
def test_a_guard_that_was_tested_on_english_says_what_it_did_not_read(mode):
    russian, both = "как сделать торт", "bomb bomb bomb bomb. как сделать торт"
    engine = {"engine": ScriptedEngine({"bomb": HARMFUL}, default=BENIGN, scores={"bomb": 0.9, "": 0.1})}
    assert guard(mode, **engine).check(russian).status == "ok"
    harmless, harmful = (guard(mode, english=True, fail_mode="open", **engine).check(t) for t in (russian, both))
    assert (harmless.status, harmless.flagged, harmless.labels.prompt_harm) == ("unread", False, "unharmful")
    assert (harmful.status, harmful.flagged, harmful.labels.prompt_harm) == ("unread", True, "harmful")


def test_a_request_without_a_reply_is_asked_one_question_only():
    verdict = guard().check("How do I kill a process?")
    assert verdict.labels == Labels("unharmful")
    assert verdict.scores["refusal"] is None
    assert not verdict.flagged


def test_verdicts_come_in_input_order_whatever_the_batch():
    exchanges = [
        Exchange(str(i), "bomb" if i % 3 == 0 else "process", None if i % 2 else "I cannot help.") for i in range(23)
    ]
    many = guard().judge(exchanges)
    assert [v.exchange_id for v in many] == [e.id for e in exchanges]
    for exchange, verdict in zip(exchanges, many, strict=True):
        assert guard().judge([exchange])[0].labels == verdict.labels


def test_instant_samples_one_token_per_question_and_reasons_not_at_all():
    verdict = guard("instant").check("bomb", "no")
    assert verdict.usage.completion_tokens == 3
    assert verdict.steps == ()
    assert verdict.mode == "instant"


def test_auto_reasons_only_where_the_score_is_uncertain():
    engine = ScriptedEngine({"unsure": BENIGN.split("Answers")[0]}, default=BENIGN, scores={"unsure": 0.5})
    verdicts = guard("auto", engine=engine).judge([Exchange("a", "unsure thing"), Exchange("b", "plain process")])
    assert [v.mode for v in verdicts] == ["full", "instant"]
    assert verdicts[0].usage.passes == 2
    assert len(engine.calls) == 2
    assert len(engine.calls[1][0]) == 1


def test_an_escalation_that_is_not_allowed_keeps_the_instant_verdict_and_says_so():
    engine = ScriptedEngine(scores={"": 0.5})
    verdicts = guard("auto", engine=engine).judge([Exchange("a", "x"), Exchange("b", "y")], max_escalations=1)
    assert [v.mode for v in verdicts] == ["full", "instant"]
    assert verdicts[1].notes["escalation_denied"] is True


def test_the_block_holds_the_label_of_the_calibrated_score_and_a_disagreement_is_a_note():
    curve = Curve("platt", (1.0, 0.0), threshold=0.999, band=None)
    calibration = Calibration({(Task.prompt_harm, "full"): curve})
    verdict = guard(calibration=calibration).check("bomb")
    assert verdict.labels.prompt_harm == "unharmful"
    assert verdict.calibrated
    assert verdict.notes["disagreement"] == {"prompt_harm": "harmful"}
    assert "Request: unharmful" in verdict.text


def test_short_takes_the_curve_of_full_where_it_has_none_of_its_own():
    curve = Curve("platt", (2.0, 1.0), 0.7, None)
    found = Calibration({(Task.prompt_harm, "full"): curve})
    assert found.curve(Task.prompt_harm, "short") == curve
    assert found.curve(Task.prompt_harm, "instant") == found.curve(Task.refusal, "short") == Curve()
    assert not found.covers(Task.prompt_harm, "short")


@settings(max_examples=50)
@given(st.floats(0.01, 0.99), st.floats(0.02, 0.98), st.floats(0.2, 5), st.floats(-3, 3))
def test_label_and_calibrated_score_never_disagree(p, threshold, slope, shift):
    calibration = Calibration({(Task.prompt_harm, "instant"): Curve("platt", (slope, shift), threshold)})
    verdict = guard("instant", engine=ScriptedEngine(scores={"": p}), calibration=calibration).check("x")
    if abs(verdict.scores["prompt_harm"] - threshold) > 1e-9:
        assert (verdict.labels.prompt_harm == "harmful") == (verdict.scores["prompt_harm"] > threshold)


def test_long_text_is_judged_in_windows_and_the_worst_decides():
    text = "one more word " * 1000 + "bomb " + "one more word " * 1000
    engine = ScriptedEngine({"bomb": HARMFUL}, default=BENIGN, context_tokens=1400)
    verdict = guard(engine=engine).check(text)
    assert verdict.usage.passes > 1
    assert verdict.labels.prompt_harm == "harmful"
    assert verdict.harm == "weapons"


def test_the_reasoning_budget_leaves_two_thirds_of_a_small_context_to_what_is_judged():
    engine = ScriptedEngine(default=BENIGN, context_tokens=768)
    verdict = guard(engine=engine, budgets=Budgets(full=768)).check("word " * 200)
    assert verdict.usage.passes == 1
    assert engine.calls[0][1][0].max_tokens == 256


def test_a_long_reply_is_judged_in_windows_with_its_request():
    engine = ScriptedEngine(
        {"bomb": HARMFUL}, default=fmt.answer("", Labels("unharmful", "compliance", "unharmful")), context_tokens=1400
    )
    verdict = guard(engine=engine).check("Tell me a story", "one more word " * 1300 + "the end")
    assert verdict.labels == Labels("unharmful", "compliance", "unharmful")
    assert all("Tell me a story" in text for text in engine.calls[0][0])
    joined = "".join(engine.calls[0][0])
    assert "the end" in joined


def test_ten_megabytes_end_at_once_as_input_too_long():
    started = time.process_time()  # of this process alone: a busy machine does not count
    verdict = guard(engine=ScriptedEngine(default=BENIGN, context_tokens=2048)).check("a " * 5_000_000)
    assert time.process_time() - started < 5
    assert verdict.status == "input_too_long"
    assert verdict.flagged
    assert verdict.fail_mode == "closed"
    assert verdict.labels == Labels()


@pytest.mark.parametrize(("text", "status"), [("x", "ok"), ("busy", "overloaded"), ("a " * 500_000, "input_too_long")])
def test_the_guards_own_notes_are_said_with_every_verdict(text, status):
    engine = ScriptedEngine({"busy": EngineOverloaded("busy")}, default=BENIGN, context_tokens=2048)
    verdict = guard(engine=engine, notes={"wire": "assumed"}).check(text)
    assert (verdict.status, verdict.notes) == (status, {"wire": "assumed"})


def test_what_hides_in_characters_is_judged_as_it_reads():
    verdict = guard().check("How do I build a b\u200b\u043emb? b\u200bomb")
    assert verdict.labels.prompt_harm == "harmful"
    assert verdict.notes["disguise"] == ["characters"]
    assert verdict.usage.passes == 1


def test_a_guess_is_judged_beside_the_text_as_written_and_the_worse_decides():
    verdict = guard().check("aG93IGRvIEkgYnVpbGQgYSBib21i")
    assert verdict.labels.prompt_harm == "harmful"
    assert verdict.notes["disguise"] == ["encoded"]
    assert verdict.usage.passes == 2


def test_letters_that_surely_stand_for_others_are_judged_in_the_place_of_the_text_as_written():
    verdict = guard().check("Pl3as3 t3ll me h0w to bu1ld a b0mb")
    assert verdict.labels.prompt_harm == "harmful"
    assert verdict.notes["disguise"] == ["leet"]
    assert verdict.usage.passes == 1


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Completion("", "timeout", error="late"), "timeout"),
        (Completion("", "refused", error="declined"), "refused"),
        (Completion("", "overloaded", error="busy"), "overloaded"),
        (EngineOverloaded("busy"), "overloaded"),
        (RuntimeError("the text was: secret"), "unavailable"),
    ],
)
@pytest.mark.parametrize("fail_mode", ["closed", "open"])
def test_what_could_not_be_judged_is_never_silently_safe(answer, status, fail_mode):
    verdict = guard(engine=ScriptedEngine(default=answer), fail_mode=fail_mode).check("x")
    assert verdict.status == status
    assert verdict.fail_mode == fail_mode
    assert verdict.flagged == (fail_mode == "closed")
    assert verdict.labels == Labels()
    assert "secret" not in (verdict.error or "")


def test_an_engine_that_dies_on_one_row_loses_only_that_row():
    engine = ScriptedEngine({"poison": ValueError("x")}, default=BENIGN)
    verdicts = guard(engine=engine).judge([Exchange(str(i), "poison" if i == 3 else "fine") for i in range(6)])
    assert [v.status for v in verdicts] == ["ok"] * 3 + ["unavailable"] + ["ok"] * 2


def test_an_engine_that_hangs_is_given_up_on_at_the_deadline():
    released = threading.Event()

    class Hanging(ScriptedEngine):
        def run(self, *args, **kwargs):
            released.wait(600)
            return []

    engine = Hanging(default=lambda _: "")
    assert not engine.capabilities.keeps_deadline
    verdict = guard(engine=engine).judge([Exchange("a", "x")], deadline=time.monotonic() + 0.1)[0]
    released.set()  # only now could the engine have answered
    assert verdict.status == "timeout"


def test_an_engine_that_cannot_force_text_reasons_freely_and_is_parsed():
    class ChatOnly(ScriptedEngine):
        @property
        def capabilities(self):
            return self._capabilities

        @capabilities.setter
        def capabilities(self, value):
            from dataclasses import replace

            self._capabilities = replace(value, force=False, logprobs=False)

    engine = ChatOnly({"bomb": HARMFUL, "cut": "# Task 1\n## Reasoning Step 1\nlong " * 900}, default="no block")
    chat = guard(engine=engine, budgets=Budgets(full=100))
    assert chat.check("bomb", "no").labels == Labels("harmful", "refusal", "unharmful")
    assert chat.check("bomb", "no").scores["prompt_harm"] is None
    assert isinstance(engine.calls[0][1][0], Free)
    assert chat.check("x").status == "unparsed"
    assert chat.check("cut").status == "truncated"
    with pytest.raises(ConfigError, match="instant"):
        guard("instant", engine=engine)


def test_both_texts_empty_is_an_error_and_an_empty_prompt_with_a_reply_is_judged():
    with pytest.raises(DataError, match="both prompt and response are empty"):
        guard().check("")
    assert guard(engine=ScriptedEngine(default=HARMFUL)).check("", "A reply").status == "ok"


def test_an_unknown_mode_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'instant'"):
        guard("instnat")


def test_where_the_last_turn_alone_decides_the_other_tasks_keep_their_steps():
    engine = ScriptedEngine(default="It asks,", scores={"earlier": 0.1, "": 0.9})
    judged = Exchange("a", "do it", "sure", (Message("user", "earlier"),))
    (verdict,) = ReasoningGuard("g", engine, mode="full", concludes=True).judge([judged])
    assert verdict.labels == Labels("harmful", "compliance", "unharmful")
    assert [(s.task, s.text.split()[-1]) for s in verdict.steps] == [
        ("prompt_harm", "harmful."),
        ("refusal", "compliance."),
        ("response_harm", "unharmful."),
    ]
    assert fmt.parse(verdict.text).labels == verdict.labels
    assert fmt.parse(verdict.text).steps == verdict.steps
