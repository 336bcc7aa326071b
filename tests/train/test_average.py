"""The mean of exported models: what the numbers are, and what is refused."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from guardreasoner.engines.onnx import OnnxEngine  # noqa: E402
from guardreasoner.errors import ConfigError  # noqa: E402
from guardreasoner.formats import guardreasoner as ours  # noqa: E402
from guardreasoner.train.average import average, main  # noqa: E402
from guardreasoner.train.export import export  # noqa: E402
from guardreasoner.types import Exchange, Task  # noqa: E402
from tiny_torch import tiny_bert_folder  # noqa: E402


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A checkpoint and the same one with all its weights moved a little."""
    folder = tmp_path_factory.mktemp("two")
    one = tiny_bert_folder(folder / "one")
    other = folder / "other"
    shutil.copytree(one, other)
    torch.manual_seed(1)
    tensors = {k: v + 0.02 * torch.randn_like(v) for k, v in load_file(other / "model.safetensors").items()}
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    return one, other


def tensors_of(folder):
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(str(folder / "model.onnx")).graph.initializer}


def logits(folder):
    prompt = ours.render(Exchange("x", "kill a process"), "compact")
    done = OnnxEngine(folder).run([prompt], ours.plan("instant", (Task.prompt_harm,)))
    return np.array(list(done[0][0].choices[0].values()))


def test_unquantised_weights_are_the_exact_mean(checkpoints, tmp_path):
    folders = [export(c, tmp_path / c.name, precision="fp32", check=False).folder for c in checkpoints]
    made = tensors_of(average(folders, tmp_path / "mean"))
    one, other = map(tensors_of, folders)
    moved = 0
    for name, value in made.items():
        if value.dtype == np.float32:
            assert value == pytest.approx((one[name] + other[name]) / 2, abs=1e-7)
            moved += not np.array_equal(one[name], other[name])
    assert moved > 10


def test_quantised_blocks_are_averaged_as_what_they_stand_for(checkpoints, tmp_path):
    full = [export(c, tmp_path / f"full-{c.name}", precision="fp32", check=False).folder for c in checkpoints]
    small = [export(c, tmp_path / f"small-{c.name}", precision="int8", check=False).folder for c in checkpoints]
    wanted = logits(average(full, tmp_path / "full"))
    got = logits(average(small, tmp_path / "small"))
    apart = abs(logits(full[0]) - logits(full[1])).max()
    assert abs(got - wanted).max() < 0.5 * apart
    assert len(json.loads((tmp_path / "small" / "averaged.json").read_text())["models"]) == 2
    assert not (tmp_path / "small" / "calibration.json").exists()


def test_what_does_not_fit_together_is_one_sentence(checkpoints, tmp_path, capsys):
    one = export(checkpoints[0], tmp_path / "one", precision="int8", check=False).folder
    coarse = export(checkpoints[1], tmp_path / "coarse", precision="int4", check=False).folder
    with pytest.raises(ConfigError, match="at least two"):
        average([one], tmp_path / "out")
    with pytest.raises(ConfigError, match="already there"):
        average([one, one], one)
    with pytest.raises(ConfigError, match="same graph"):
        average([one, coarse], tmp_path / "out")
    with pytest.raises(ConfigError, match="int8 and fp32"):
        average([coarse, coarse], tmp_path / "out")
    (tmp_path / "none").mkdir()
    assert main([str(tmp_path / "out"), str(one), str(tmp_path / "none")]) == 1
    assert "holds no model.onnx" in capsys.readouterr().err
    assert main([str(one)]) == 2
    assert not (tmp_path / "out").exists()
