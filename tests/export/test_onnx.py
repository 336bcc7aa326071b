"""From checkpoint to ONNX folder: equal to torch, small, whole or not at all."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from guardreasoner.engines.hf import HfEngine  # noqa: E402
from guardreasoner.engines.onnx import OnnxEngine  # noqa: E402
from guardreasoner.errors import ConfigError, RunFolderError  # noqa: E402
from guardreasoner.export import onnx as stage  # noqa: E402
from guardreasoner.export.bert_graph import BLOCK, BertShape, bert_graph, quantize  # noqa: E402
from guardreasoner.formats import guardreasoner as ours  # noqa: E402
from guardreasoner.types import Exchange, Task  # noqa: E402
from tiny import tiny_onnx_folder, tiny_shape, tiny_tokenizer, tiny_weights  # noqa: E402
from tiny_torch import tiny_bert_folder, tiny_llama_folder  # noqa: E402


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("llama"))


def test_an_unquantised_export_equals_torch(bert, tmp_path):
    made = stage.export(bert, tmp_path / "out", precision="fp32")
    assert made.max_deviation < 1e-4


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_quantised_export_is_small_and_its_deviation_is_reported(bert, tmp_path, precision):
    made = stage.export(bert, tmp_path / "out", precision=precision)
    full = stage.export(bert, tmp_path / "full", precision="fp32")
    assert 1e-3 < made.max_deviation < 12
    assert made.bytes < 0.5 * full.bytes
    OnnxEngine(made.folder).run(
        [ours.render(Exchange("x", "kill a process"), "compact")], ours.plan("instant", tuple(Task))
    )


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_a_llama_goes_through_the_builder_and_answers_as_in_torch(llama, tmp_path, precision):
    made = stage.export(llama, tmp_path / "out", precision=precision)
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


def test_onnxruntime_genai_runs_the_same_folder(bert, tmp_path):
    genai = pytest.importorskip("onnxruntime_genai")
    folder = stage.export(bert, tmp_path / "out", precision="fp32").folder
    ids = np.arange(5, 25, dtype=np.int32)[None]
    parameters = genai.GeneratorParams(genai.Model(str(folder)))
    parameters.set_search_options(max_length=64, batch_size=1)
    generator = genai.Generator(genai.Model(str(folder)), parameters)
    generator.append_tokens(ids)
    network = HfEngine(str(bert), dtype="float32", device="cpu").model
    with torch.inference_mode():
        wanted = network(input_ids=torch.tensor(ids.astype(np.int64))).logits[0, -1].numpy()
    assert np.abs(generator.get_logits().reshape(-1) - wanted).max() < 1e-4


def test_the_graph_without_a_transform_is_the_network_without_one():
    import onnx

    shape = tiny_shape(tiny_tokenizer().get_vocab_size())
    weights = tiny_weights(shape)
    kept = {k: v for k, v in weights.items() if "transform" not in k}
    names = {n.name for n in bert_graph(shape, kept, "fp32").graph.node}
    assert "transform.act" not in names
    onnx.checker.check_model(bert_graph(shape, weights, "fp32").SerializeToString())


def test_the_token_embeddings_are_stored_once():
    shape = BertShape(4096, 64, 1, 4, 64, 32)
    size = len(bert_graph(shape, tiny_weights(shape), "int8").SerializeToString())
    table = shape.vocab_size * shape.hidden_size
    assert table < size < 1.6 * table


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 1 / 127), (4, 1 / 7)])
def test_quantised_blocks_come_back_within_a_step(bits, tolerance):
    weight = np.random.default_rng(0).normal(size=(6, 4 * BLOCK)).astype(np.float32)
    weight[2] = 0.0
    codes, scales = quantize(weight, bits)
    assert codes.shape == (6, 4, BLOCK * bits // 8)
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], -1).reshape(6, 4, BLOCK)
    back = (codes.astype(np.float32) - (1 << (bits - 1))) * scales[..., None]
    blocks = weight.reshape(6, 4, BLOCK)
    assert np.abs(back - blocks).max() <= np.abs(blocks).max() * tolerance
    assert (back[2] == 0).all()


def test_the_folder_appears_whole_and_replaces_what_was_there(bert, tmp_path, monkeypatch):
    out = tmp_path / "out"
    stage.export(bert, out, precision="fp32", check=False)
    before = sorted(p.name for p in out.iterdir())
    (out / "stale").write_text("x")
    monkeypatch.setattr(stage, "copy_small_files", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        stage.export(bert, out, precision="int8", check=False)
    assert (out / "stale").exists()
    monkeypatch.undo()
    stage.export(bert, out, precision="int8", check=False)
    assert sorted(p.name for p in out.iterdir()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_as_a_stage_it_writes_a_manifest_and_resumes(bert, tmp_path):
    made = stage.run(bert, tmp_path, stage.ExportConfig(precision="int8"))
    manifest = json.loads((tmp_path / "export" / "manifest.json").read_text())
    assert manifest["counts"] == {"in": 1, "out": 1, "dropped": {}}
    assert manifest["max_deviation"] == made.max_deviation
    changed = (made.folder / "model.onnx").stat().st_mtime_ns
    again = stage.run(bert, tmp_path, stage.ExportConfig(precision="int8"))
    assert again == made
    assert (made.folder / "model.onnx").stat().st_mtime_ns == changed
    with pytest.raises(RunFolderError, match="precision"):
        stage.run(bert, tmp_path, stage.ExportConfig(precision="fp32"))


def copy_of(folder, target):
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def edit(folder, **changes):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def forget_a_tensor(folder):
    path = folder / "model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, path)


WRONG = {
    "no checkpoint": (lambda f: (f / "config.json").unlink(), "not a checkpoint"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"no tokenizer\.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"no \*\.safetensors"),
    "no decoder": (lambda f: edit(f, is_decoder=False), "not a BERT decoder"),
    "relative positions": (lambda f: edit(f, position_embedding_type="relative_key"), "absolute positions"),
    "strange activation": (lambda f: edit(f, hidden_act="silu"), "'silu' cannot be exported"),
    "odd width": (lambda f: edit(f, hidden_size=60), "multiples of 32"),
    "another vocabulary": (lambda f: edit(f, vocab_size=99), "the config says"),
    "a tensor is missing": (forget_a_tensor, "no weight named 'bert.encoder.layer.1.output.dense.weight'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_checkpoint_that_cannot_be_exported_is_one_sentence(bert, tmp_path, what):
    damage, words = WRONG[what]
    folder = copy_of(bert, tmp_path / "checkpoint")
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


def test_the_end_token_is_found_in_the_tokenizer_where_the_config_is_silent(bert, tmp_path):
    folder = copy_of(bert, tmp_path / "checkpoint")
    edit(folder, eos_token_id=..., bos_token_id=...)
    made = stage.export(folder, tmp_path / "out", check=False)
    model = json.loads((made.folder / "genai_config.json").read_text())["model"]
    tokenizer = tiny_tokenizer()
    assert model["eos_token_id"] == tokenizer.token_to_id("[SEP]")
    assert model["bos_token_id"] == tokenizer.token_to_id("[CLS]")
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="which token ends an answer"):
        stage.export(folder, tmp_path / "out2")


def test_the_tiny_folder_of_the_tests_is_what_export_makes(bert, tmp_path):
    made = stage.export(bert, tmp_path / "out", precision="fp32", check=False).folder
    tiny = tiny_onnx_folder(tmp_path, precision="fp32")
    prompts = [ours.render(Exchange("x", "how to kill a process"), "compact")]
    plan = ours.plan("full", tuple(Task), budget=8)
    assert OnnxEngine(made).run(prompts, plan) == OnnxEngine(tiny).run(prompts, plan)
