"""The mean of checkpoints: what the numbers are, what the stage writes, and what is refused."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from safetensors.torch import load_file, save_file  # noqa: E402

from guardreasoner.errors import ConfigError, DataError  # noqa: E402
from guardreasoner.export.onnx import export  # noqa: E402
from guardreasoner.reproduce import reproduce  # noqa: E402
from guardreasoner.train.average import average, main, run_average  # noqa: E402
from guardreasoner.train.models import read_meta, write_meta  # noqa: E402
from guardreasoner.train.recipe import parse_recipe  # noqa: E402
from tiny_torch import tiny_bert_folder  # noqa: E402


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A checkpoint of permissive rows, and the same one with its weights moved a little and other rows."""
    folder = tmp_path_factory.mktemp("two")
    one = tiny_bert_folder(folder / "one")
    write_meta(one, {"wire": "compact", "base": "minilm", "licences": {"use": ["permissive"]}})
    other = folder / "other"
    shutil.copytree(one, other)
    torch.manual_seed(1)
    tensors = {k: v + 0.02 * torch.randn_like(v) for k, v in load_file(other / "model.safetensors").items()}
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    write_meta(other, {"wire": "compact", "base": "minilm", "licences": {"use": ["noncommercial"]}})
    return one, other


def test_weights_are_the_exact_mean_and_the_licence_is_that_of_all_rows(checkpoints, tmp_path):
    mean = average(checkpoints, tmp_path / "mean")
    made, one, other = (load_file(f / "model.safetensors") for f in (mean, *checkpoints))
    assert set(made) == set(one)
    assert len(made) > 10
    for name, value in made.items():
        assert torch.allclose(value, (one[name] + other[name]) / 2, atol=1e-7)
        assert not torch.equal(value, one[name])
    assert read_meta(mean)["licences"]["use"] == ["permissive", "noncommercial"]
    assert export(mean, tmp_path / "model", precision="fp32").max_deviation < 1e-3


def test_the_stage_averages_a_run_with_its_members_and_resumes(checkpoints, tmp_path):
    with pytest.raises(DataError, match="not trained yet"):
        run_average(tmp_path, ["other"])
    for checkpoint, place in zip(checkpoints, ("sft", "average-other/sft"), strict=True):
        shutil.copytree(checkpoint, tmp_path / place / "checkpoint")
    made = run_average(tmp_path, ["other"])
    assert made["counts"] == {"in": 2, "out": 2, "dropped": {}}
    assert made["config"] == {"members": ["other"]}
    weights = tmp_path / "average" / "checkpoint" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert run_average(tmp_path, ["other"]) == made
    assert weights.stat().st_mtime_ns == before
    (tmp_path / "average" / ".checkpoint.torn").mkdir()
    assert run_average(tmp_path, ["other"], fresh=True)["counts"]["out"] == 2
    assert weights.exists()
    assert not (tmp_path / "average" / ".checkpoint.torn").exists()


def test_a_member_that_does_not_state_its_rows_makes_the_mean_unstated(checkpoints, tmp_path):
    silent = tmp_path / "silent"
    shutil.copytree(checkpoints[0], silent)
    write_meta(silent, {"wire": "compact", "base": "minilm", "licences": {"use": None}})
    mean = average([checkpoints[0], silent], tmp_path / "mean")
    assert read_meta(mean)["licences"]["use"] == ["permissive", "unstated"]


def test_a_recipe_whose_member_trains_on_its_validation_rows_is_refused(tmp_path):
    member = tmp_path / "member.yaml"
    member.write_text("data: {leave_out: [oktest]}\n")
    recipe = parse_recipe(
        f"data: {{leave_out: [oktest, strongreject]}}\naverage: ['{member}']\nstages: [average]\n", name="mine"
    )
    with pytest.raises(ConfigError, match=r"recipe member trains on .*, which mine leaves out to validate on"):
        list(reproduce(recipe, "mine", out=tmp_path / "run"))
    with pytest.raises(ConfigError, match="leave out the stage dpo"):
        parse_recipe(f"average: ['{member}']\nstages: [sft, dpo, average]\n", name="mine")


def test_what_does_not_fit_together_is_one_sentence(checkpoints, tmp_path, capsys):
    one, other = checkpoints
    with pytest.raises(ConfigError, match="at least two"):
        average([one], tmp_path / "out")
    with pytest.raises(ConfigError, match="already there"):
        average([one, one], one)
    small = tmp_path / "small"
    shutil.copytree(one, small)
    tensors = load_file(small / "model.safetensors")
    save_file(dict(list(tensors.items())[:-1]), small / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="same tensors"):
        average([one, small], tmp_path / "out")
    strange = tmp_path / "strange"
    shutil.copytree(other, strange)
    tokenizer = json.loads((strange / "tokenizer.json").read_text())
    (strange / "tokenizer.json").write_text(json.dumps({**tokenizer, "version": "1.1"}))
    with pytest.raises(ConfigError, match="different tokenizers"):
        average([one, strange], tmp_path / "out")
    (tmp_path / "none").mkdir()
    assert main([str(tmp_path / "out"), str(one), str(tmp_path / "none")]) == 1
    assert "holds no model.safetensors" in capsys.readouterr().err
    assert main([str(one)]) == 2
    assert not (tmp_path / "out").exists()
