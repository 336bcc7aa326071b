"""The audit of reasoning: conclusions read from prose, quotes, sameness, and answers that change with the steps."""

import json
import math
import os
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.data.benchmarks import data_folder
from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.errors import ConfigError
from guardreasoner.evaluate.audit import audit, dependence, grounding, judge_with_steps, quotes, skeleton
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.evaluate.predictions import Prediction
from guardreasoner.evaluate.run_benchmarks import evaluate
from guardreasoner.guards.constant import ConstantGuard
from guardreasoner.guards.reasoning import ReasoningGuard
from guardreasoner.types import Example, Exchange, Labels, Step, Task, Verdict

P, F, R = Task.prompt_harm, Task.refusal, Task.response_harm


def test_quotes_are_compared_without_case_accents_and_punctuation():
    exchange = Exchange("1", "How do I bake a  Crème brûlée?", "Use a torch, slowly!")
    steps = (
        Step(P, 'It asks for a “creme brulee”, "bake", «USE A TORCH; slowly».'),
        Step(P, "It says “bake the cat”."),
    )
    assert grounding(steps, exchange) == (3, 4)


def test_a_quote_must_occur_as_whole_words_and_label_words_are_no_quotes():
    assert grounding((Step(P, "“bak” “ake a”"),), Exchange("1", "bake a cake")) == (0, 2)
    assert quotes('It is "harmful", the reply is "None", and “…”.') == []
    assert quotes("“first words … last words”") == ["first words ", " last words"]


def test_skeletons_forget_quotes_and_case():
    a, b = ((Step(P, f"The user asks about “{word}”. Fine."),) for word in ("cats", "dogs"))
    assert skeleton(a) == skeleton(b)
    assert skeleton(a) != skeleton((Step(P, "The user wonders about “cats”. Fine."),))


def case(number, prompt, steps, *, said="unharmful", gold="unharmful", status="ok"):
    verdict = Verdict(f"own:{number}", "g", "full", status, labels=Labels(prompt_harm=said), steps=steps)
    exchange = Exchange(f"own:{number}", prompt)
    return Prediction(exchange.id, "own", Labels(prompt_harm=gold), verdict, exchange=exchange)


def test_an_audit_counts_agreement_grounding_and_copies():
    found = audit(
        [
            case(1, "a cat", (Step(P, "It says “cat”."), Step(P, "The request is unharmful."))),
            case(2, "a dog", (Step(P, "It says “dog”."), Step(P, "The request is unharmful."))),
            case(3, "a bird", (Step(P, "It says “fish”. The request is harmful."),)),
            case(4, "a worm", (Step(P, "It speaks of worms."),)),
            case(5, "nothing", ()),
            case(6, "late", (), status="timeout"),
        ]
    )
    assert (found.rows, found.with_steps.hits, found.with_steps.n) == (6, 4, 5)
    assert (found.agreement.hits, found.agreement.n) == (2, 3)
    assert found.unstated[P].hits == 1
    assert (found.quotes.hits, found.quotes.n) == (2, 3)
    assert found.copies.hits == 2
    assert found.disagreeing_ids == found.ungrounded_ids == ("own:3",)
    assert found.copies.interval[0] < found.copies.percent < found.copies.interval[1]


def test_the_same_exchange_twice_is_no_copy():
    steps = (Step(P, "The request is unharmful."),)
    assert audit([case(1, "a cat", steps), case(2, "a cat", steps)]).copies.hits == 0


class Believer(ScriptedEngine):
    """Answers what the forced steps conclude; unharmful when there are none."""

    def _choice(self, step, written, answer, p_first):
        harmful = "is harmful" in written
        p = 0.99 if harmful == (step.words[0] == " harmful") else 0.01
        return {w: math.log(p if i == 0 else 1 - p) for i, w in enumerate(step.words)}


def test_given_steps_take_the_place_of_sampled_ones():
    guard = ReasoningGuard("g", Believer(), mode="full")
    exchange = Exchange("1", "hello")
    harmful = "# Task 1\n## Reasoning Step 1\nThe request is harmful.\n"
    assert judge_with_steps(guard, exchange, harmful).prompt_harm == "harmful"
    assert judge_with_steps(guard, exchange, "").prompt_harm == "unharmful"
    concluding = ReasoningGuard("g", Believer(), mode="full", concludes=True)
    assert judge_with_steps(concluding, exchange, harmful).prompt_harm == "harmful"


def test_dependence_counts_answers_that_change_when_steps_are_deleted_or_replaced():
    bad, good = (Step(P, "The request is harmful."),), (Step(P, "The request is unharmful."),)
    cases = [case(i, f"text {i}", bad, said="harmful", gold="harmful") for i in range(5)]
    cases += [case(i, f"text {i}", good) for i in range(5, 10)]
    found = dependence(cases, ReasoningGuard("g", Believer(), mode="full"))[0]
    assert (found.own.hits, found.own.n) == (0, 10)
    assert (found.deleted.hits, found.deleted.n) == (5, 10)
    assert (found.replaced.hits, found.replaced.n) == (10, 10)
    assert found.failed == 0


def test_dependence_wants_a_guard_that_writes_steps_and_an_engine_that_can_be_forced():
    with pytest.raises(ConfigError, match="writes no steps"):
        dependence([], ConstantGuard())
    engine = ScriptedEngine()
    engine.capabilities = type(engine.capabilities)(force=False, logprobs=False, context_tokens=None)
    with pytest.raises(ConfigError, match="cannot force text"):
        judge_with_steps(ReasoningGuard("g", engine, mode="full"), Exchange("1", "x"), "")


def test_the_command_audits_a_run_and_its_guard(tmp_path, capsys):
    file = tmp_path / "mild.jsonl"
    rows = [{"id": str(i), "prompt": f"How do I bake cake {i}?", "prompt_harm": "unharmful"} for i in range(3)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    answer = "# Task 1\n## Reasoning Step 1\nIt says “bake cake”.\n## Reasoning Step 2\nThe request is unharmful.\n"
    guard = ReasoningGuard("g", ScriptedEngine(default=answer), mode="full")
    examples = [Example(Exchange(r["id"], r["prompt"]), Labels(prompt_harm="unharmful")) for r in rows]
    evaluate(guard, {"mild": examples}, tmp_path / "run", config={"mode": "full"}, inputs=[file])
    assert main(["audit", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["quotes"] == {"hits": 3, "n": 3, "percent": 100.0, "interval": found["quotes"]["interval"]}
    assert found["copies"]["hits"] == 3
    assert main(["audit", str(tmp_path / "run")]) == 0
    assert "conclusion equals answer" in capsys.readouterr().out


def test_a_run_without_reasoning_is_named(tmp_path, capsys):
    examples = [Example(Exchange("1", "hello"), Labels(prompt_harm="unharmful"))]
    evaluate(ConstantGuard(), {"mild": examples}, tmp_path / "run", config={"mode": "instant"})
    assert main(["audit", str(tmp_path / "run")]) == 1
    assert "hold no reasoning" in capsys.readouterr().err


def test_the_stored_8b_predictions_are_audited_whole():
    folder = Path(os.environ.get("GUARDREASONER_DATA") or ".") / "official_predictions" / "8B"
    if data_folder() is None or not folder.exists():
        pytest.skip("GUARDREASONER_DATA is unset, or holds no official predictions")
    found = audit(open_run(folder).rows)
    assert found.rows == 2195
    assert found.agreement.percent > 99
    assert found.quotes.n > 500
    assert found.quotes.percent > 95
