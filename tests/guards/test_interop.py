"""GuardBench and any-guardrail, both ways: by contract here, and in the real packages where they are installed."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from guardreasoner.data.messages import as_exchange
from guardreasoner.errors import ConfigError
from guardreasoner.guards.base import Guard
from guardreasoner.guards.custom import FunctionGuard, as_guard
from guardreasoner.guards.interop import AnyGuardrailGuard, ModerateGuard, as_any_guardrail, as_moderate
from guardreasoner.types import Exchange, Labels, Message, Task

ASK = Exchange("1", "my hat?")
BOTH = Exchange("2", "my hat?", "A BAD reply")


def loud(prompt, response):
    answer = {"prompt_harm": 0.9 if prompt.isupper() else 0.2}
    return answer | ({} if response is None else {"response_harm": "harmful" if "BAD" in response else "unharmful"})


def turns(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


def test_ours_moderates_the_last_turn_of_a_conversation():
    moderate = as_moderate(FunctionGuard(loud))
    assert moderate(conversations=[turns("hat?"), turns("HAT"), turns("hat?", "BAD"), turns("HAT", "fine")]) == [
        pytest.approx(0.2),
        pytest.approx(0.9),
        1.0,
        0.0,
    ]
    assert moderate(conversations=[], batch_size=3) == []


def test_what_cannot_be_judged_is_harm_when_closed_and_none_when_open():
    for mode, number in (("closed", 1.0), ("open", 0.0)):
        moderate = as_moderate(FunctionGuard(lambda p, r: None, fail_mode=mode))
        assert moderate(conversations=[turns("hat?")]) == [number]


def test_a_conversation_becomes_an_exchange_with_its_earlier_turns():
    found = as_exchange(turns("a", "b", "c", "d"), "x")
    assert found == Exchange("x", "c", "d", (Message("user", "a"), Message("assistant", "b")))
    assert as_exchange([{"role": "assistant", "content": "b"}], "x") == Exchange("x", "", "b")
    assert as_exchange(turns("a"), "x") == Exchange("x", "a")


def test_a_moderation_function_is_a_guard_that_sees_request_and_reply_apart():
    seen = []

    def moderate(conversations, extra=None):
        seen.extend(conversations)
        return [0.7 if c[-1]["content"] == "A BAD reply" else 0.3 for c in conversations]

    guard = as_guard(moderate, name="theirs")
    assert isinstance(guard, ModerateGuard)
    assert isinstance(guard, Guard)
    ask, both = guard.judge([ASK, BOTH])
    assert seen == [turns("my hat?"), turns("my hat?"), turns("my hat?", "A BAD reply")]
    assert (ask.labels, both.labels) == (Labels("unharmful"), Labels("unharmful", None, "harmful"))
    assert (both.scores["response_harm"], both.flagged, ask.flagged) == (0.7, True, False)
    assert both.scores["refusal"] is None


def test_a_half_is_not_harm_as_guardbench_counts_it():
    assert ModerateGuard(lambda conversations: [0.5]).judge([ASK])[0].labels.prompt_harm == "unharmful"


@pytest.mark.parametrize("numbers", [[0.1, 0.2], [], None, ["x"], [2.0], [float("nan")]])
def test_a_moderation_function_that_breaks_its_contract_leaves_the_exchange_unjudged(numbers):
    (verdict,) = ModerateGuard(lambda conversations: numbers).judge([ASK])
    assert verdict.status in ("unavailable", "unparsed")
    assert (verdict.labels, verdict.flagged, verdict.fail_mode) == (Labels(), True, "closed")


def output(valid=True, score=None, categories=(), explanation=None, extra=None, usage=None):
    named = [SimpleNamespace(name=n, triggered=t) for n, t in categories]
    return SimpleNamespace(
        valid=valid, score=score, categories=named, explanation=explanation, extra=extra, usage=usage
    )


class Theirs:
    """A guardrail that says what it is told to."""

    def __init__(self, ask, both=None):
        self.ask, self.both, self.calls = ask, both, []

    def validate(self, input_text, output_text=None):
        self.calls.append((input_text, output_text))
        return self.ask if output_text is None else self.both


def test_a_guardrail_is_a_guard_by_its_verdict_and_score():
    usage = SimpleNamespace(prompt_tokens=3, completion_tokens=1, latency_ms=2.0)
    theirs = Theirs(output(True, 0.1), output(False, 0.8, [("S2", True), ("S3", False)], "unsafe\nS2", usage=usage))
    guard = as_guard(theirs, name="theirs")
    assert isinstance(guard, AnyGuardrailGuard)
    (verdict,) = guard.judge([BOTH])
    assert theirs.calls == [("my hat?", None), ("my hat?", "A BAD reply")]
    assert verdict.labels == Labels("unharmful", None, "harmful")
    assert verdict.scores == {"prompt_harm": 0.1, "refusal": None, "response_harm": 0.8}
    assert (verdict.harm, verdict.text, verdict.usage.prompt_tokens, verdict.usage.passes) == ("S2", "unsafe\nS2", 3, 2)


def test_a_guardrail_that_names_its_findings_answers_by_name():
    findings = [("harmful_request", True), ("response_refusal", True), ("harmful_response", False)]
    guard = AnyGuardrailGuard(Theirs(output(False, categories=findings[:1]), output(False, categories=findings)))
    ask, both = guard.judge([ASK, BOTH])
    assert ask.labels == Labels("harmful")
    assert both.labels == Labels("harmful", "refusal", "unharmful")


def test_a_guardrail_that_fails_or_cannot_read_its_model_leaves_the_exchange_unjudged():
    unread = AnyGuardrailGuard(Theirs(output(False, extra={"parse_failure": True})))
    assert unread.judge([ASK])[0].status == "unparsed"
    broken = AnyGuardrailGuard(Theirs(None), fail_mode="open")
    broken.guardrail.validate = lambda *a, **k: 1 / 0
    (verdict,) = broken.judge([ASK])
    assert (verdict.status, verdict.flagged) == ("unavailable", False)


def test_ours_as_theirs_needs_their_package_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "any_guardrail", None)
    monkeypatch.setitem(sys.modules, "any_guardrail.base", None)
    with pytest.raises(ConfigError, match="pip install any-guardrail"):
        as_any_guardrail(FunctionGuard(loud))


# --- the real packages, in an environment of their own -------------------------------------------------------------

PEERS = os.environ.get("GUARDREASONER_PEERS_PYTHON")
SOURCE = str(Path(__file__).parents[2] / "src")


def in_their_environment(code, tmp_path):
    if not PEERS:
        pytest.skip(
            "GUARDREASONER_PEERS_PYTHON is not set: no Python with guardbench 1.0 and any-guardrail 0.7 at hand"
        )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": SOURCE, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [PEERS, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=250
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_guardbench_itself_runs_a_guard_of_ours_over_a_data_set_of_its_kind(tmp_path):
    code = """
import json, pathlib
import guardbench
from guardbench.benchmark import effectiveness
from guardreasoner.guards.custom import FunctionGuard
from guardreasoner.guards.interop import as_moderate, ModerateGuard
from guardreasoner.types import Exchange
def loud(prompt, response):
    return {"prompt_harm": 0.9 if prompt.isupper() else 0.2} | ({} if response is None else {"response_harm": 0.8})
rows = [("a", False, [("user", "where is my hat?")]), ("b", True, [("user", "WHERE IS MY HAT?")]),
        ("c", True, [("user", "hat?"), ("assistant", "no")])]
data = [{"id": i, "label": y, "conversation": [{"role": r, "content": c} for r, c in t]} for i, y, t in rows]
pathlib.Path("mine.jsonl").write_text("".join(json.dumps(d) + "\\n" for d in data))
mine = guardbench.CustomDataset(name="Mine").load_data("mine.jsonl")
effectiveness.load_dataset = lambda name: mine
ours = as_moderate(FunctionGuard(loud))
guardbench.benchmark(ours, model_name="ours", out_dir="out", datasets=["mine"], batch_size=2)
print("SCORES", json.dumps(json.loads(pathlib.Path("out/mine/ours.json").read_text())))
back = ModerateGuard(as_moderate(FunctionGuard(loud))).judge([Exchange("1", "WHERE"), Exchange("2", "w", "r")])
print("BACK", [(v.labels.prompt_harm, v.labels.response_harm) for v in back])
"""
    out = in_their_environment(code, tmp_path)
    assert 'SCORES {"a": 0.2, "b": 0.9, "c": 0.8}' in out
    assert "BACK [('harmful', None), ('unharmful', 'harmful')]" in out
    assert "Results" in out


def test_any_guardrail_itself_takes_ours_and_ours_takes_theirs(tmp_path):
    code = """
from any_guardrail.base import Guardrail
from any_guardrail.types import CategoryResult, GuardrailOutput
from guardreasoner.guards.custom import FunctionGuard
from guardreasoner.guards.interop import AnyGuardrailGuard, as_any_guardrail
from guardreasoner.types import Exchange
def loud(prompt, response):
    reply = {} if response is None else {"refusal": True, "response_harm": 0.8}
    return {"prompt_harm": 0.9 if prompt.isupper() else 0.2} | reply
ours = as_any_guardrail(FunctionGuard(loud))
assert isinstance(ours, Guardrail)
out = ours.validate("where", output_text="no")
assert isinstance(out, GuardrailOutput)
print("OURS", out.valid, out.score, [(c.name, c.triggered) for c in out.categories], out.extra["status"])
print("JSON", GuardrailOutput.model_validate_json(out.model_dump_json()).valid, ours.validate("where").valid)
class Theirs(Guardrail):
    def validate(self, input_text, output_text=None, **kwargs):
        bad = "hat" in (output_text or input_text)
        found = [CategoryResult(name="hats", triggered=bad)]
        return GuardrailOutput(valid=not bad, score=0.7 if bad else 0.1, categories=found)
v = AnyGuardrailGuard(Theirs()).judge([Exchange("1", "my shoe", "your hat")])[0]
print("THEIRS", v.labels.prompt_harm, v.labels.response_harm, v.scores["response_harm"], v.harm)
w = AnyGuardrailGuard(ours).judge([Exchange("1", "my shoe", "your hat")])[0]
print("ROUND", w.labels.prompt_harm, w.labels.refusal, w.labels.response_harm)
"""
    out = in_their_environment(code, tmp_path)
    named = "[('harmful_request', False), ('response_refusal', True), ('harmful_response', True)]"
    assert f"OURS False 0.8 {named} ok" in out
    assert "JSON False True" in out
    assert "THEIRS unharmful harmful 0.7 hats" in out
    assert "ROUND unharmful refusal harmful" in out


def test_both_interfaces_answer_the_two_harm_tasks():
    assert ModerateGuard(lambda conversations: [0.0]).tasks == (Task.prompt_harm, Task.response_harm)
    assert set(AnyGuardrailGuard(Theirs(None)).tasks) == set(Task)
