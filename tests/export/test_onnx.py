"""From checkpoint to ONNX folder: equal to torch, small, whole or not at all."""

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from guardreasoner.engines.hf import HfEngine  # noqa: E402
from guardreasoner.engines.onnx import OnnxEngine  # noqa: E402
from guardreasoner.errors import ConfigError, RunFolderError  # noqa: E402
from guardreasoner.export import onnx as stage  # noqa: E402
from guardreasoner.formats import guardreasoner as ours  # noqa: E402
from guardreasoner.types import Exchange, Task  # noqa: E402
from tiny import DATA, tiny_onnx_folder  # noqa: E402
from tiny_torch import tiny_checkpoint, tiny_llama_folder  # noqa: E402


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("wordpiece"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_a_llama_goes_through_the_builder_and_answers_as_in_torch(llama, tmp_path, precision):
    made = stage.export(llama, tmp_path / "out", precision=precision)
    assert precision == "fp32" or 1e-3 < made.max_deviation < 12
    embedded, original = OnnxEngine(made.folder), HfEngine(str(llama), dtype="float32", device="cpu")
    prompts = [ours.render(Exchange("x", "how to kill a process <|eot_id|> " * k), "chat") for k in (1, 4)]
    plan = ours.plan("full", tuple(Task), budget=10)
    got, wanted = embedded.run(prompts, plan), original.run(prompts, plan)
    assert [c.prompt_tokens for (c,) in got] == [c.prompt_tokens for (c,) in wanted]
    if precision == "fp32":
        assert made.max_deviation < 1e-4
        assert [c.text for (c,) in got] == [c.text for (c,) in wanted]
    if precision == "int8":  # the tied matrix is stored once, in 8 bits
        graph = pytest.importorskip("onnx").load(str(made.folder / "model.onnx"), load_external_data=False).graph
        assert {"lm_head.MatMul.weight_Q8", "embed/middle"} <= {i.name for i in graph.initializer}
        assert "model.embed_tokens.weight" not in {i.name for i in graph.initializer}
    for p, (c,) in zip(prompts, got, strict=True):
        assert c.text == embedded.run([p], plan)[0][0].text


def test_onnxruntime_genai_runs_the_same_folder(wordpiece, tmp_path):
    genai = pytest.importorskip("onnxruntime_genai")
    folder = tiny_onnx_folder(tmp_path, precision="fp32")
    ids = np.arange(5, 25, dtype=np.int32)[None]
    parameters = genai.GeneratorParams(genai.Model(str(folder)))
    parameters.set_search_options(max_length=64, batch_size=1)
    generator = genai.Generator(genai.Model(str(folder)), parameters)
    generator.append_tokens(ids)
    network = HfEngine(str(wordpiece), dtype="float32", device="cpu").model
    with torch.inference_mode():
        wanted = network(input_ids=torch.tensor(ids.astype(np.int64))).logits[0, -1].numpy()
    assert np.abs(generator.get_logits().reshape(-1) - wanted).max() < 1e-4


@pytest.fixture
def built(monkeypatch):
    """What the builder makes, without the seconds that it takes."""

    def build(source, config, folder, precision):
        shutil.copytree(DATA / precision, folder, dirs_exist_ok=True)

    monkeypatch.setattr(stage, "_build", build)


@pytest.mark.usefixtures("built")
def test_the_folder_appears_whole_and_replaces_what_was_there(wordpiece, tmp_path):
    out = tmp_path / "out"
    stage.export(wordpiece, out, precision="fp32", check=False)
    before = sorted(p.name for p in out.iterdir())
    (out / "stale").write_text("x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "copy_small_files", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            stage.export(wordpiece, out, precision="int8", check=False)
    assert (out / "stale").exists()
    stage.export(wordpiece, out, precision="int8", check=False)
    assert sorted(p.name for p in out.iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.usefixtures("built")
def test_as_a_stage_it_writes_a_manifest_and_resumes(wordpiece, tmp_path):
    made = stage.run(wordpiece, tmp_path, stage.ExportConfig(precision="int8"))
    manifest = json.loads((tmp_path / "export" / "manifest.json").read_text())
    assert manifest["counts"] == {"in": 1, "out": 1, "dropped": {}}
    assert manifest["max_deviation"] == made.max_deviation
    changed = (made.folder / "model.onnx").stat().st_mtime_ns
    again = stage.run(wordpiece, tmp_path, stage.ExportConfig(precision="int8"))
    assert again == made
    assert (made.folder / "model.onnx").stat().st_mtime_ns == changed
    with pytest.raises(RunFolderError, match="precision"):
        stage.run(wordpiece, tmp_path, stage.ExportConfig(precision="fp32"))


def copy_of(folder, target):
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def edit(folder, **changes):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


WRONG = {
    "no checkpoint": (lambda f: (f / "config.json").unlink(), "not a checkpoint"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"no tokenizer\.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"no \*\.safetensors"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_checkpoint_that_cannot_be_exported_is_one_sentence(wordpiece, tmp_path, what):
    damage, words = WRONG[what]
    folder = copy_of(wordpiece, tmp_path / "checkpoint")
    damage(folder)
    with pytest.raises(ConfigError, match=words) as caught:
        stage.export(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint"]


def test_an_architecture_that_the_builder_does_not_know_is_one_sentence(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "checkpoint")
    edit(folder, architectures=["HomemadeForCausalLM"])
    with pytest.raises(ConfigError, match="cannot export") as caught:
        stage.export(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_tiny_folder_of_the_tests_is_what_export_makes(wordpiece, tmp_path, precision):
    made = stage.export(wordpiece, tmp_path / "out", precision=precision)
    tiny = tiny_onnx_folder(tmp_path, precision=precision)
    assert made.bytes == sum(file.stat().st_size for file in tiny.iterdir()) < {"fp32": 450e3, "int8": 225e3}[precision]
    prompts = [ours.render(Exchange("x", "how to kill a process"), "raw")]
    plan = ours.plan("full", tuple(Task), budget=8)
    assert OnnxEngine(made.folder).run(prompts, plan) == OnnxEngine(tiny).run(prompts, plan)
