"""A base's own 4 bits and adapters beside them: nothing of the checkpoint is lost; what cannot be kept is refused."""

import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
quants = pytest.importorskip("gguf.quants", reason="needs the train extra")

from gguf import GGMLQuantizationType  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from guardreasoner.errors import ConfigError  # noqa: E402
from guardreasoner.export import low_rank, onnx  # noqa: E402
from guardreasoner.train.four_bit_weights import FourBits  # noqa: E402
from tiny_torch import tiny_llama_folder  # noqa: E402

RANK = 4


def q4_1(weights):
    return FourBits.q4_1(quants.quantize(weights.astype(np.float32), GGMLQuantizationType.Q4_1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint: a base on the grid with an adapter merged into every matrix; its grids; its float32 export."""
    folder = tiny_llama_folder(tmp_path_factory.mktemp("trained"))
    rng, grids, weights = np.random.default_rng(1), {}, load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if name.endswith("proj.weight"):
            grids[name] = q4_1(tensor.numpy())
            outputs, inputs = tensor.shape
            change = rng.normal(size=(outputs, RANK)) @ rng.normal(size=(RANK, inputs)) * 0.02
            weights[name] = torch.tensor(grids[name].weights + change.astype(np.float32))
    name = "model.embed_tokens.weight"  # the base's embeddings lie on a grid of 8 bits, and are not trained
    stored = quants.quantize(weights[name].numpy(), GGMLQuantizationType.Q8_0)
    weights[name] = torch.tensor(quants.dequantize(stored, GGMLQuantizationType.Q8_0))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "guard.json").write_text('{"base": "smollm2"}')
    whole = onnx.export(folder, folder.parent / "fp32", precision="fp32", check=False).folder
    return folder, grids, whole


def test_the_grid_reads_what_gguf_writes():
    weights = np.random.default_rng(0).normal(size=(6, 96)).astype(np.float32)
    stored = quants.quantize(weights, GGMLQuantizationType.Q4_1)
    grid = FourBits.q4_1(stored)
    assert grid.codes.max() <= 15
    assert np.array_equal(grid.weights, quants.dequantize(stored, GGMLQuantizationType.Q4_1))
    assert grid.weights == pytest.approx(weights, abs=0.2)
    with pytest.raises(ConfigError, match="holds no rows of Q4_1 blocks"):
        FourBits.q4_1(stored[:, :-1])


def test_a_grid_in_halves_is_reordered_into_rotary_pairs():
    grid = q4_1(np.repeat(np.arange(8.0)[:, None], 32, 1))
    assert grid.rotary(2).weights[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_the_export_computes_the_merged_checkpoint(trained, tmp_path, monkeypatch):
    folder, grids, whole = trained
    weights = onnx.load_weights(folder)
    monkeypatch.setattr(low_rank, "INTEGER_PRODUCTS", 1)  # float32, so that only what is stored can differ
    shutil.copytree(whole, tmp_path / "exact")
    low_rank.on_grid(tmp_path / "exact", weights, grids, rank=RANK)
    shutil.copytree(whole, tmp_path / "base")
    plain = {name: grids[name].weights if name in grids else w for name, w in weights.items()}
    low_rank.on_grid(tmp_path / "base", plain, grids, rank=RANK)
    exact, without = (onnx.deviation_from_torch(folder, tmp_path / name) for name in ("exact", "base"))
    assert exact < 0.05 < 1 < without


def test_the_export_is_small_and_keeps_both_ends_of_the_model_in_one_matrix(trained, tmp_path, monkeypatch):
    folder, grids, whole = trained
    monkeypatch.setitem(onnx.GRIDS, "smollm2", lambda: grids)
    made = onnx.export(folder, tmp_path / "out", precision="int4", rank=RANK)
    graph = pytest.importorskip("onnx").load(str(made.folder / "model.onnx"), load_external_data=False).graph
    names = {i.name for i in graph.initializer}
    assert "lm_head.MatMul.weight_Q8" in names
    assert not names & {"lm_head.MatMul.weight", "model.layers.0.attn.o_proj.MatMul.weight"}
    assert made.max_deviation < 4
    assert onnx.is_quantised(made.folder)
    assert (made.folder / "model.onnx.data").stat().st_size < (whole / "model.onnx.data").stat().st_size / 2


def test_a_change_of_higher_rank_is_refused_by_name(trained, tmp_path):
    folder, grids, whole = trained
    shutil.copytree(whole, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"layers\.0\.\S+ differs from the base by more than a change of rank 3"):
        low_rank.on_grid(tmp_path / "out", onnx.load_weights(folder), grids, rank=3)
    assert (tmp_path / "out" / "model.onnx.data").read_bytes() == (whole / "model.onnx.data").read_bytes()


@pytest.mark.parametrize(
    ("precision", "meta"), [("int8", '{"base": "smollm2"}'), ("int4", '{"base": "tiny"}'), ("int4", "{}")]
)
def test_rank_goes_with_a_base_in_four_bits_only(trained, tmp_path, precision, meta):
    folder = shutil.copytree(trained[0], tmp_path / "checkpoint")
    (folder / "guard.json").write_text(meta)
    with pytest.raises(
        ConfigError, match=r"rank goes with precision int4 and a base that came in 4 bits.*leave rank out"
    ):
        onnx.export(folder, tmp_path / "out", precision=precision, rank=RANK)
    assert not (tmp_path / "out").exists()
