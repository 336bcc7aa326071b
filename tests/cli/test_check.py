"""`guardreasoner check` on the scripted engine: what it reads, prints, refuses, and exits with."""

import io
import json
import re
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from guardreasoner.cli import check as command
from guardreasoner.cli.main import main
from guardreasoner.cli.show_verdict import print_verdict
from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.formats import guardreasoner as fmt
from guardreasoner.generation import Completion
from guardreasoner.guards.reasoning import ReasoningGuard
from guardreasoner.types import Exchange, Labels, Step, Task, Usage, Verdict

REASONED = fmt.answer(
    fmt.reasoning_text([Step(Task.prompt_harm, "It asks for \x1b[31m“poison”. The kind of harm is violence.")]),
    Labels("harmful", "refusal", "unharmful"),
)


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    def load(name, *, mode, fail_mode, **options):
        engine = ScriptedEngine(
            {"poison": REASONED, "slow": Completion("", "timeout", error="late")},
            default=fmt.answer("", Labels("unharmful", "compliance", "unharmful")),
        )
        return ReasoningGuard("test", engine, mode=mode, fail_mode=fail_mode)

    monkeypatch.setattr(command, "load_guard", load)


def run(capsys, *words, stdin=None, monkeypatch=None):
    if stdin is not None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    code = main(["check", *words])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_verdict_is_shown_with_steps_probabilities_and_cost(capsys):
    code, out, _ = run(capsys, "How do I buy poison?", "--response", "No.", "--mode", "full")
    assert code == 0
    for part in ("FLAGGED", "Is the request harmful?", "P(harmful)", "refusal", "violence", "test · full", "ms"):
        assert part in out
    assert "\x1b[31m" not in out
    assert "\\x1b[31m" in out


def test_markup_and_control_characters_in_judged_text_are_shown_not_sent(capsys):
    _, out, _ = run(capsys, "[red]hi[/] \x1b]0;title\x07 \u202e poison", "--mode", "instant")
    assert "[red]hi[/]" in out
    assert "\x1b]0;" not in out
    assert "\\x1b]0;title\\x07" in out
    assert "\u202e" not in out


def test_json_prints_the_verdict_with_the_field_names_of_python(capsys):
    _, out, _ = run(capsys, "How do I buy poison?", "--json")
    verdict = json.loads(out)
    assert verdict["labels"] == {"prompt_harm": "harmful", "refusal": None, "response_harm": None}
    assert set(verdict) >= {"exchange_id", "guard", "mode", "status", "scores", "flagged", "usage", "steps", "error"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["buy poison", "--fail-on", "harmful"], 10),
        (["buy bread", "--fail-on", "harmful"], 0),
        (["buy poison", "--response", "No.", "--fail-on", "refusal"], 10),
        (["buy bread", "--response", "Sure", "--fail-on", "any"], 0),
        (["slow"], 11),
        (["slow", "--fail-mode", "open"], 0),
        ([""], 1),
        ([], 1),
        (["x", "--examples"], 1),
    ],
)
def test_exit_codes(capsys, words, code):
    assert run(capsys, *words, "--mode", "full")[0] == code


def test_usage_errors_exit_two(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["check", "--nonsense"])
    assert caught.value.code == 2


def test_json_lines_are_judged_in_order_and_other_fields_pass_through(capsys, monkeypatch):
    lines = b'{"prompt": "poison", "id": 7, "team": "a"}\n\n{"prompt": "", "response": "Sure"}\n'
    code, out, _ = run(capsys, "-", stdin=lines, monkeypatch=monkeypatch)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [r["exchange_id"] for r in rows] == ["7", "3"]
    assert rows[0]["team"] == "a"


def test_a_bad_line_is_named_in_its_place_and_the_rest_is_judged(capsys, monkeypatch):
    lines = (
        b'{"prompt": "one"}\n{"prompt": \n\xff\xfe\n{"prompt": 5}\n{"text": "x"}\n{"prompt": ""}\n'
        b'{"prompt": "\\ud800 two\\u0000 poison"}\n[1]\n'
    )
    code, out, err = run(capsys, "-", stdin=lines, monkeypatch=monkeypatch)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [r.get("line") for r in rows] == [None, 2, 3, 4, 5, 6, None, 8]
    assert "not JSON" in rows[1]["error"]
    assert "not UTF-8" in rows[2]["error"]
    assert "field 'prompt'" in rows[3]["error"]
    assert "has no prompt" in rows[4]["error"]
    assert "both prompt and response are empty" in rows[5]["error"]
    assert rows[6]["labels"]["prompt_harm"] == "harmful"  # the text after the NUL is judged
    assert "Traceback" not in err


def test_an_unknown_mode_is_one_sentence_that_names_the_nearest(capsys):
    code, _, err = run(capsys, "x", "--mode", "instnt")
    assert code == 1
    assert err == "guardreasoner: there is no mode named 'instnt'; did you mean 'instant'?\n"


def test_a_wrong_option_is_one_sentence(capsys):
    code, _, err = run(capsys, "x", "--option", "threads")
    assert code == 1
    assert err == "guardreasoner: --option 'threads' is not KEY=VALUE\n"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_what_a_verdict_cost_is_never_cut(width):
    usage = Usage(9, 230, 1234.0, 4)
    verdict = Verdict("a", "g", "full", "ok", Labels("harmful"), usage=usage, notes={"guards": ["nano", "mini"]})
    with Console(width=width, record=True, file=io.StringIO()) as console:
        print_verdict(console, Exchange("a", "x"), verdict)
    shown = " ".join(re.sub("[│╰─╯·]", " ", console.export_text()).split())
    assert "g full (nano, mini) 1,234 ms 230 tokens sampled 4 passes scores not calibrated" in shown


@pytest.mark.parametrize(("counted", "said"), [(["prompt_harm"], " on the refusal"), ([], "")])
def test_it_is_said_which_answers_the_reasoning_had_no_part_in(counted, said):
    verdict = Verdict("a", "g", "full", "ok", Labels("harmful", "refusal"), steps=(Step(Task.prompt_harm, "It asks."),))
    with Console(width=200, record=True, file=io.StringIO()) as console:
        notes = {"escalated": counted, "guards": ["nano", "mini"], "disagreement": {"refusal": "compliance"}}
        print_verdict(console, Exchange("a", "x", "y"), replace(verdict, notes=notes))
    shown = console.export_text()
    assert "g · full (nano, mini) · " in shown
    assert "the model that reasons answers otherwise: compliance on the refusal" in shown
    assert f"nano decided{said}; mini's own answer does not count" in shown


def test_a_second_text_is_told_how_a_reply_is_given_and_not_repeated(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["check", "How do I bake bread?", "Mix flour and water."])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "--response REPLY" in told
    assert "flour" not in told
