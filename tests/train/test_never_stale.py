"""A stage is done only for what it was done with: changed inputs and sections are refused, a moved run is not."""

import shutil
import time
from dataclasses import replace

import pytest

pytest.importorskip("trl", reason="the train extra is not installed")

from guardreasoner import reproduce as road
from guardreasoner.errors import ConfigError, DataError, RunFolderError, UnknownName
from guardreasoner.records import write_jsonl
from guardreasoner.run_folder import Counts, RunFolder, input_names
from guardreasoner.train.models import load_base, save_checkpoint
from guardreasoner.train.recipe import parse_recipe
from guardreasoner.train.settings import ModelConfig
from guardreasoner.train.sft import run_sft
from tiny_training import QUICK_SFT, TINY
from train_tools import write_traces

RECIPE = """
model: {base: tiny, wire: raw}
sample: {engine: hf, k: 2, max_tokens: 8, limit: 2}
evaluate: {engine: hf, mode: instant, benchmarks: [everyday], limit: 4}
stages: [sft, evaluate]
"""


def recipe_of(text=RECIPE):
    return parse_recipe(text, name="test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with two tiny checkpoints."""
    root = tmp_path_factory.mktemp("run")
    write_traces(root, 4)
    model, tokenizer = load_base(TINY)
    save_checkpoint(model, tokenizer, root / "sft" / "checkpoint", meta={"wire": "raw", "base": "tiny"})
    return root


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def spoil(run):
    """Other weights under the same name."""
    path = run / "sft" / "checkpoint" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def evaluate(run, text=RECIPE):
    return road._evaluate(recipe_of(text), run, None, fresh=False)


def test_a_changed_evaluate_section_is_no_finished_evaluation(run):
    first = evaluate(run)
    assert evaluate(run) == first
    with pytest.raises(RunFolderError, match="'limit'"):
        evaluate(run, RECIPE.replace("limit: 4", "limit: 6"))


def test_an_evaluation_of_other_weights_is_refused(run):
    evaluate(run)
    spoil(run)
    with pytest.raises(RunFolderError, match="'model'"):
        evaluate(run)


def test_sampling_is_bound_to_the_checkpoints_that_sampled(run):
    first = road.sample_stage(recipe_of(), run)
    assert road.sample_stage(recipe_of(), run) == first
    assert "sft/checkpoint" in first["inputs"]
    spoil(run)
    with pytest.raises(RunFolderError, match="input 'sft/checkpoint'"):
        road.sample_stage(recipe_of(), run)


def test_a_run_may_be_copied_moved_and_named_by_another_path(run, tmp_path, monkeypatch):
    road.sample_stage(recipe_of(), run)
    manifest = evaluate(run)
    shutil.move(run, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert evaluate(tmp_path / "elsewhere") == manifest
    assert road.sample_stage(recipe_of(), "elsewhere")["counts"]["out"] == 2
    assert road.sample_stage(recipe_of(), tmp_path / "elsewhere" / ".." / "elsewhere")["counts"]["out"] == 2


def test_a_base_that_is_a_folder_is_an_input_of_training(run, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(run / "sft" / "checkpoint", base)
    model = ModelConfig(base=str(base), wire="raw")
    manifest = run_sft(replace(QUICK_SFT, max_steps=1), model, out=run, stage="sft-other")
    assert set(manifest["inputs"]) == {"synthesize/traces.jsonl", "base"}
    spoil_base = base / "model.safetensors"
    spoil_base.write_bytes(spoil_base.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunFolderError, match="input 'base'"):
        run_sft(replace(QUICK_SFT, max_steps=1), model, out=run, stage="sft-other")


def test_a_finished_stage_of_several_processes_is_compared_too(run, monkeypatch):
    """Nothing is launched for it, and a changed value is refused."""
    monkeypatch.setattr(road, "launch", lambda *_: pytest.fail("launched"))
    recipe = replace(recipe_of(), sft=replace(QUICK_SFT, max_steps=1))
    shutil.rmtree(run / "sft")
    road._sft(recipe, "sft", "x.yaml", run, processes=1, fresh=False)
    assert road._sft(recipe, "sft", "x.yaml", run, processes=2, fresh=False)["steps"] == 1
    changed = replace(recipe, sft=replace(recipe.sft, learning_rate=1e-6))
    with pytest.raises(RunFolderError, match="'learning_rate'"):
        road._sft(changed, "sft", "x.yaml", run, processes=2, fresh=False)


def test_inputs_are_named_so_that_they_stay_apart_and_stay_the_same(tmp_path):
    for name in ("a/model.bin", "b/model.bin", "run/sft/checkpoint", "other.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    paths = [tmp_path / n for n in ("a/model.bin", "b/model.bin", "run/sft/checkpoint", "other.txt")]
    assert list(input_names(paths, tmp_path / "run")) == ["a/model.bin", "b/model.bin", "sft/checkpoint", "other.txt"]


def test_the_manifest_counts_all_sittings(tmp_path, monkeypatch):
    clock = iter([0.0, 10.0, 10.0, 100.0, 100.0, 105.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with RunFolder(tmp_path, "sft", config={}, processes=2) as run:
        run.tick(peak_memory_bytes=900)
    with RunFolder(tmp_path, "sft", config={}, processes=1) as run:
        manifest = run.finish(Counts(), device_hours=run.device_hours, peak=run.most("peak_memory_bytes"))
    assert (manifest["seconds"], manifest["sittings"], manifest["peak"]) == (15.0, 2, 900)


def test_the_mean_loss_is_that_of_all_steps(tmp_path):
    from guardreasoner.train.trainer import mean_loss

    with RunFolder(tmp_path, "sft", config={}) as run:
        for step, loss in ((1, 4.0), (10, 2.0), (20, 1.0)):
            run.log(step=step, loss=loss)
        run.log(step=20, train_loss=0.3)
        assert mean_loss(run) == pytest.approx((4 + 9 * 2 + 10 * 1) / 20)


@pytest.mark.parametrize("key", ["leave_out", "only"])
def test_a_misspelt_source_is_named_and_not_trained_on_in_silence(tmp_path, key):
    write_traces(tmp_path, 6, sources=("AegisTrain", "ToxicChatTrain"))
    with pytest.raises(UnknownName, match=r"'AegisTrian'.*did you mean 'AegisTrain'"):
        run_sft(replace(QUICK_SFT, max_steps=1, **{key: ("AegisTrian",)}), TINY, out=tmp_path)


def test_a_chat_template_whose_markers_the_tokenizer_lacks_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from guardreasoner.train.models import prepare_tokenizer

    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="</s>")
    with pytest.raises(ConfigError, match=r"llama3 is made of <\|end_header_id\|>, which this base's"):
        prepare_tokenizer(bare, ModelConfig(base="x", wire="chat", chat_template="llama3"))


def test_each_diversity_model_samples_what_it_was_trained_on_also_of_published_traces(tmp_path):
    write_traces(tmp_path, 8, sources=("AegisTrain", "ToxicChatTrain"))
    text = RECIPE + "variants: {diversity-1: {leave_out: [AegisTrain]}}\n"
    recipe = recipe_of(text.replace("k: 2", "k: 2, models: [sft, diversity-1], only_trained_on: true"))
    assert road._trained_on(recipe, tmp_path) == {"diversity-1": frozenset({"ToxicChatTrain"})}


def test_nothing_is_sampled_from_a_quantised_export(tmp_path):
    import onnx

    folder = tmp_path / "export"
    folder.mkdir()
    node = onnx.helper.make_node("MatMulNBits", ["a"], ["b"], domain="com.microsoft")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [])), folder / "model.onnx")
    (folder / "genai_config.json").write_text("{}")
    recipe = recipe_of(RECIPE.replace("k: 2", f"k: 2, models: ['{folder}']"))
    write_jsonl(tmp_path / "synthesize" / "traces.jsonl", [])
    with pytest.raises(ConfigError, match="quantised export"):
        road.sample_stage(recipe, tmp_path)


def test_a_model_that_is_not_trained_yet_cannot_sample(tmp_path):
    with pytest.raises(DataError, match="sft is not trained yet"):
        road.sample_stage(recipe_of(), tmp_path)
