"""The calibrate stage of a recipe whose model reads nano's verdicts judges with them, and stacks both."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("sklearn", reason="the eval extra is not installed")

from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.errors import UnknownName
from guardreasoner.evaluate import calibrate_stage
from guardreasoner.evaluate.calibrate import CalibrateConfig
from guardreasoner.guards.calibration import read_calibration
from guardreasoner.guards.cascade import read_stacks
from guardreasoner.guards.reasoning import ReasoningGuard
from guardreasoner.records import read_jsonl, write_jsonl
from guardreasoner.types import Example, Exchange, Labels, Task

KINDS = {"bake a cake": ("unharmful", 0.2), "rob a shop": ("harmful", 0.7), "sort the mail": ("harmful", 0.6)}
"""nano finds nothing in the mail; the model does."""
BOTH = CalibrateConfig("expected-f1", modes=("instant", "full"))


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A run with 48 validation rows, and a model that is scripted."""
    rows = [
        Example(Exchange(f"{source}-{i}", f"How do I {text} no. {i}?", reply, source=source), Labels(gold))
        for source in ("one", "two")
        for i in range(8)
        for text, (gold, _) in KINDS.items()
        for reply in ([None, "No."][i % 2],)
    ]
    rows = [replace(e, exchange=replace(e.exchange, id=f"{e.exchange.source}-{i}")) for i, e in enumerate(rows)]
    write_jsonl(tmp_path / "synthesize" / "validation.jsonl", rows)
    (tmp_path / "export" / "model").mkdir(parents=True)
    (tmp_path / "export" / "model" / "model.onnx").write_bytes(b"weights")
    scripted = ScriptedEngine(scores={text: p for text, (_, p) in KINDS.items()})
    named = calibrate_stage.load_guard

    def load(name, *, mode, **options):
        if name == "nano":
            return named(name, mode=mode)
        return ReasoningGuard("model", scripted, mode=mode, first_look=True, **options)

    monkeypatch.setattr(calibrate_stage, "load_guard", load)
    return scripted


def looked(engine):
    """How many prompts of a run held a first look, and how many did not."""
    texts = [text for asked, _ in engine.calls for text in asked]
    return sum("First look: " in t for t in texts), sum("First look: " not in t for t in texts)


def test_where_it_reasons_the_model_reads_what_nano_says_of_each_row(engine, tmp_path):
    made = calibrate_stage.run(tmp_path, BOTH, first="nano")
    assert looked(engine) == (48, 48)  # full, and instant
    assert made["counts"] == {"in": 48, "out": 48, "dropped": {}}
    found = read_calibration(tmp_path / "export" / "model" / "calibration.json")
    assert {mode for _, mode in found.curves} == {"instant", "full"}
    rows = [row for _, row in read_jsonl(tmp_path / "calibrate" / "verdicts" / "full.jsonl")]
    assert {round(row["scores"]["prompt_harm"], 6) for row in rows} == {0.2, 0.6, 0.7}  # the model's own, raw
    bands, stacks = read_stacks(tmp_path / "export" / "model" / "stacks.json")
    assert stacks.keys() == {Task.prompt_harm}
    assert stacks[Task.prompt_harm].second > 0
    assert bands == {}  # the budget is 0


def test_what_pieces_need_is_written_beside_the_fit(engine, tmp_path):
    calibrate_stage.run(tmp_path, replace(BOTH, modes=("instant",), pieces={"prompt_harm": (0.5, -1.0, 1.0)}))
    found = read_calibration(tmp_path / "export" / "model" / "calibration.json")
    assert found.curve(Task.prompt_harm, "instant").piece == (0.5, -1.0, 1.0)


@pytest.mark.parametrize("key", ["targets", "sources", "pieces"])
def test_a_task_that_does_not_exist_is_named_before_anything_is_judged(key):
    with pytest.raises(UnknownName, match="there is no task named 'prompt_harms'; did you mean 'prompt_harm'"):
        CalibrateConfig(**{key: {"prompt_harms": ()}})


def test_another_budget_is_fitted_on_the_same_verdicts(engine, tmp_path):
    calibrate_stage.run(tmp_path, BOTH, first="nano")
    before = len(engine.calls)
    calibrate_stage.run(tmp_path, BOTH, first="nano")
    calibrate_stage.run(tmp_path, replace(BOTH, budget=0.5), first="nano")
    assert len(engine.calls) == before
    fits = json.loads((tmp_path / "export" / "model" / "stacks.json").read_text())["fits"]
    assert [(fit["task"], fit["band"] is None) for fit in fits] == [("prompt_harm", False)]


def test_a_limit_judges_fewer_rows_and_without_it_the_rest_follows(engine, tmp_path):
    made = calibrate_stage.run(tmp_path, replace(BOTH, modes=("full",), limit=33), first="nano")
    assert made["counts"]["in"] == sum(looked(engine)) == 33
    made = calibrate_stage.run(tmp_path, replace(BOTH, modes=("full",)), first="nano")
    assert made["counts"]["in"] == sum(looked(engine)) == 48


def test_what_the_model_failed_on_is_counted_and_fits_nothing(engine, tmp_path):
    engine.answers = {"rob a shop no. 0": TimeoutError("gone"), "rob a shop no. 1": TimeoutError("gone")}
    made = calibrate_stage.run(tmp_path, replace(BOTH, modes=("full",)), first="nano")
    assert made["counts"] == {"in": 48, "out": 44, "dropped": {"unjudged": 4}}
    assert [fit["n"] for fit in made["fits"]] == [44]


def test_without_a_first_look_nothing_is_stacked(engine, tmp_path):
    calibrate_stage.run(tmp_path, BOTH)
    assert looked(engine) == (0, 96)
    assert not (tmp_path / "export" / "model" / "stacks.json").exists()
