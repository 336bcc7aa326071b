"""The label-only twin of a recipe: derived, trained on the same traces, evaluated apart, set beside its sibling."""

import pytest

import guardreasoner.reproduce as module
from guardreasoner.cli.main import main
from guardreasoner.errors import UnknownName
from guardreasoner.evaluate.run_benchmarks import evaluate
from guardreasoner.guards.base import Judging
from guardreasoner.report.build import build
from guardreasoner.report.content import document
from guardreasoner.report.markdown import render_markdown
from guardreasoner.train.recipe import parse_recipe
from guardreasoner.types import Example, Exchange, Labels, Task, Verdict

RECIPE = """
sft: {max_steps: 7, seed: 3}
variants: {other: {seed: 4}}
evaluate: {engine: onnx, mode: full, benchmarks: [everyday]}
"""


class Guard(Judging):
    """Wrong on every nth exchange."""

    tasks = (Task.prompt_harm,)

    def __init__(self, name, every):
        self.name, self.every = name, every

    def judge(self, exchanges):
        said = {e.id: self._said(e.id) for e in exchanges}
        scores = {
            i: {t.value: None for t in Task} | {"prompt_harm": 0.9 if s == "harmful" else 0.2} for i, s in said.items()
        }
        return [Verdict(i, self.name, "full", "ok", Labels(prompt_harm=s), scores[i]) for i, s in said.items()]

    def _said(self, identity):
        number = int("".join(c for c in identity if c.isdigit()) or 0)
        return "harmful" if (number % 2 == 1) != (number % self.every == 0) else "unharmful"


def test_every_recipe_has_a_label_only_twin_with_the_settings_of_its_own_sft():
    recipe = parse_recipe(RECIPE, name="x")
    twin = recipe.variant("baseline-mix")
    assert (twin.reasoning, twin.labels_only, twin.max_steps, twin.seed) == (0, 1, 7, 3)
    written = parse_recipe("variants: {baseline-mix: {labels_only: 0.5, reasoning: 0.5}}", name="y")
    assert written.variant("baseline-mix").labels_only == 0.5
    with pytest.raises(UnknownName, match="baseline-mix"):
        recipe.variant("baseline-mux")


def test_the_variant_trains_on_the_same_traces_and_is_evaluated_apart_without_reasoning(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "_one", lambda name, *_, **__: asked.append(name) or {"stage": name})

    def sft(recipe, variant, *_, **__):
        (tmp_path / recipe.folder(variant) / "checkpoint").mkdir(parents=True)
        asked.append(variant)
        return {"stage": "sft"}

    monkeypatch.setattr(module, "_sft", sft)

    def load(folder, *, mode, engine):
        asked.append((folder.removeprefix(str(tmp_path)), mode, engine))
        return Guard("twin", 7)

    monkeypatch.setattr(module, "load_guard", load)
    recipe = parse_recipe(RECIPE, name="x")
    stages = list(module.reproduce(recipe, "x", out=tmp_path, variant="baseline-mix"))
    assert asked == ["synthesize", "baseline-mix", ("/sft-baseline-mix/checkpoint", "instant", "hf")]
    assert [s["stage"] for s in stages] == ["synthesize", "sft", "evaluate"]
    assert stages[-1]["config"]["variant"] == "baseline-mix"
    assert (tmp_path / "evaluate-baseline-mix" / "manifest.json").exists()
    assert not (tmp_path / "evaluate").exists()


def test_a_variant_that_is_not_there_is_named_by_the_command(tmp_path, capsys):
    assert main(["reproduce", "smoke", "--variant", "baseline-mux", "--out", str(tmp_path)]) == 1
    assert "baseline-mix" in capsys.readouterr().err


def test_the_report_sets_the_twin_beside_its_sibling_with_the_paired_test(tmp_path):
    rows = [
        Example(Exchange(f"r{i}", f"text {i}"), Labels(prompt_harm="harmful" if i % 2 else "unharmful"))
        for i in range(60)
    ]
    for name, every, variant in (("twin", 5, "baseline-mix"), ("own", 31, "")):
        guard = Guard("checkpoint", every)  # as `reproduce` names the folder of every model
        evaluate(guard, {"set": rows}, tmp_path / name, config={"recipe": "x", "variant": variant})
    report = build([tmp_path / "twin", tmp_path / "own"])
    (twins,) = report.twins
    (found,) = twins.comparisons
    assert (twins.reasoning, twins.labels_only, found.a, found.b) == ("x", "x baseline-mix") * 2
    # own errs on 0 and 31: 29 of 30 found, one false alarm at 0; twin on every fifth: 24 found, 6 false alarms
    assert found.difference == pytest.approx(100 * (2 * 29 / 60 - 2 * 24 / 60))
    assert found.low > 0
    text = render_markdown(document(report))
    assert "With and without reasoning" in text
    ((task, cells, area),) = twins.areas  # its scores are 0.9 where it says harmful: right on 29 of 30 and 24 of 30
    assert (task, cells, area.a) == (Task.prompt_harm, ("set",), "x")
    assert area.difference == pytest.approx(29 / 30 - 24 / 30)
    assert area.low > 0
    assert "AUROC for reasoning" in text
    assert "x scores 16.67 F1 points more than x baseline-mix" in text.replace("\\", "")
