"""Runs in an environment with Guardrails AI: a real Guard with our validator."""

from guardrails import Guard, OnFailAction
from script_guard import BLOCKED, Words, run

from guardreasoner.integrations.guardrails_ai import GuardReasonerValidator


def guard(on_fail=OnFailAction.NOOP, **more):
    return Guard().use(GuardReasonerValidator(Words(), on_fail=on_fail, **more))


def test_a_harmless_reply_passes():
    done = guard().validate("fine", metadata={"prompt": "hi"})
    assert (done.validation_passed, done.validated_output) == (True, "fine")


def test_a_harmful_reply_fails_with_the_verdict_and_without_its_words():
    done = guard().validate("a bad plan", metadata={"prompt": "hi"})
    assert done.validation_passed is False
    (summary,) = done.validation_summaries
    assert BLOCKED in summary.failure_reason
    assert "model words" not in str(done)


def test_a_harmless_reply_to_a_harmful_request_passes():
    assert guard().validate("I will not", metadata={"prompt": "bad"}).validation_passed


def test_the_value_may_be_a_request():
    assert not guard(says="prompt").validate("bad").validation_passed
    assert guard(says="prompt").validate("hi").validation_passed


def test_on_fail_actions_are_those_of_guardrails():
    said = ""
    try:
        guard(OnFailAction.EXCEPTION).validate("bad")
    except Exception as error:
        said = str(error)
    assert BLOCKED in said
    assert guard(OnFailAction.FIX).validate("bad").validated_output == BLOCKED


def test_a_failing_guard_fails_when_closed_and_passes_when_open():
    done = guard().validate("RAISE")
    assert not done.validation_passed
    assert "not judged: unavailable" in done.validation_summaries[0].failure_reason
    assert "planted" not in str(done)
    assert guard(fail_mode="open").validate("RAISE").validation_passed


def test_streams_are_judged_sentence_by_sentence():
    validator = GuardReasonerValidator(Words(), on_fail=OnFailAction.NOOP)
    results = [validator.validate_stream(c, {}) for c in ("All is fine. ", "Here is a bad plan. ", "More. ")]
    results.append(validator.validate_stream("", {}, remainder=True))
    outcomes = [r.outcome for r in results if r is not None]
    assert "fail" in outcomes


run(dict(globals()))
