"""First looks: drawn from verdicts on rows of the same gold labels, never from a verdict on the row itself."""

from dataclasses import replace

from guardreasoner.formats.guardreasoner import reasoning_text
from guardreasoner.train.first_looks import WITHOUT, FirstLooks
from guardreasoner.types import Example, Exchange, Labels, Step, Task, Trace, Verdict


def judged(name, gold, p, *, response=None, category="", kind="drugs"):
    scores = {"prompt_harm": p, "refusal": None, "response_harm": None}
    labels = Labels("harmful" if p >= 0.5 else "unharmful")
    verdict = Verdict(name, "nano", "instant", "ok", labels, scores, kinds={kind: 0.8, "hate": 0.1})
    return Example(Exchange(name, "x", response), Labels(gold), category), verdict


def trace(name, gold, *, response=None, harm=""):
    said = f"It asks for a thing, so the request is {gold}.{f' The kind of harm is {harm}.' if harm else ''}"
    reasoning = reasoning_text([Step(Task.prompt_harm, said)])
    return Trace(Example(Exchange(name, "y", response), Labels(gold)), reasoning, "written", "1")


def test_a_look_is_right_as_often_as_the_guard_is_on_rows_of_that_label():
    wrong = [judged(f"w{i}", "harmful", 0.3) for i in range(2)]
    looks = FirstLooks([*wrong, *(judged(f"r{i}", "harmful", 0.95) for i in range(6)), judged("u", "unharmful", 0.1)])
    said = [looks.of(trace(str(i), "harmful")) for i in range(4000)]
    told = [look for look in said if look]
    assert abs(len(told) / len(said) - (1 - WITHOUT)) < 0.02
    assert abs(sum("harmful (sure)" in look for look in told) / len(told) - 6 / 8) < 0.03
    assert {look for look in told if "unharmful" in look} == {"First look: the request is unharmful (likely)."}
    assert looks.of(trace("7", "harmful")) == looks.of(trace("7", "harmful"))


def test_a_request_with_a_reply_takes_no_look_from_a_request_alone():
    looks = FirstLooks([judged("a", "harmful", 0.95)])
    assert {looks.of(trace(str(i), "harmful", response="z")) for i in range(20)} == {""}


def test_the_kind_is_the_rows_own_where_the_guard_named_the_right_one_and_the_guards_where_it_was_wrong():
    right, wrong = judged("a", "harmful", 0.95, category="heroin"), judged("b", "harmful", 0.95, category="phishing")
    for row, kind in ((right, "weapons"), (wrong, "drugs")):
        said = {FirstLooks([row]).of(trace(str(i), "harmful", harm="pipe bombs")) for i in range(20)} - {""}
        assert said == {f"First look: the request is harmful (sure). The kind of harm is {kind}."}


def test_a_verdict_that_was_not_given_is_no_look():
    example, verdict = judged("a", "harmful", 0.95)
    assert FirstLooks([(example, replace(verdict, status="timeout"))]).of(trace("1", "harmful")) == ""
