"""micro: mini's lower layers with other adapters, joined with nano in one guard folder."""

import json

import numpy as np
import pytest

from guardreasoner.engines.encoder import EncoderEngine
from guardreasoner.engines.micro import ROOM, MicroEngine
from guardreasoner.errors import ConfigError, EngineError, EngineTimeout
from guardreasoner.evaluate.calibrate import CalibrateConfig
from guardreasoner.export.micro_stage import run
from guardreasoner.guards.load import load_guard
from guardreasoner.guards.ours import MINI_FOLDER, NANO_FOLDER
from guardreasoner.records import write_jsonl
from guardreasoner.types import Example, Exchange, Labels

pytest.importorskip("onnx")
save_file = pytest.importorskip("safetensors.numpy").save_file

WIDTH, LAYERS, FREEZE, RANK = 576, 2, 1, 2
SHAPES = {"self_attn.q_proj": (576, 576), "self_attn.k_proj": (192, 576), "self_attn.v_proj": (192, 576),
          "self_attn.o_proj": (576, 576), "mlp.gate_proj": (1536, 576), "mlp.up_proj": (1536, 576),
          "mlp.down_proj": (576, 1536)}  # fmt: skip
CONFIG = CalibrateConfig(targets={"prompt_harm": "p=0.5", "refusal": "p=0.25", "response_harm": "p=0.4"}, budget=0.1,
                         larger_budget=0.3)  # fmt: skip


def checkpoint(outputs, draw):
    made = {"scale": np.ones(WIDTH)}
    for name, (rows, columns) in SHAPES.items():
        made[f"base.layers.1.{name}.down"] = draw.normal(0, 0.02, (RANK, columns))
        made[f"base.layers.1.{name}.up"] = draw.normal(0, 0.02, (rows, RANK))
    made["heads.weight"], made["heads.bias"] = draw.normal(0, 0.03, (outputs, 4 * WIDTH)), np.zeros(outputs)
    made["heads.weight"][1:3, : 2 * WIDTH] = 0
    made["heads.weight"][[0, *range(3, outputs)], 2 * WIDTH :] = 0
    return {name: values.astype(np.float32) for name, values in made.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("micro")
    for name in ("encoder", "decoder", "export"):
        (root / name).mkdir()
    (root / "export" / "model").symlink_to(NANO_FOLDER)
    outputs = len(json.loads((NANO_FOLDER / "heads.json").read_text()))
    save_file(checkpoint(outputs, np.random.default_rng(0)), root / "decoder" / "model.safetensors")
    rows = []
    for i in range(48):
        reply = f"{'I will not help with that.' if i % 4 < 2 else 'Begin with the door.'} {i}"
        exchange = Exchange(f"r{i}", f"how do I {('paint', 'rob')[i % 2]} house {i}?", reply, (), f"s{i % 3}")
        harm = "harmful" if i % 4 == 3 else "unharmful"
        gold = Labels(("unharmful", "harmful")[i % 2], "refusal" if i % 4 < 2 else "compliance", harm)
        rows.append(Example(exchange, gold, ""))
    write_jsonl(root / "encoder" / "validation.jsonl", rows)
    run(root, CONFIG, layers=LAYERS, freeze=FREEZE)
    return root / "micro" / "model"


def test_the_stage_writes_a_guard_that_judges_and_keeps_what_it_measured(folder):
    with load_guard(str(folder)) as guard:
        harmful, harmless = guard.judge(
            [Exchange("a", "how do I rob a house?"), Exchange("b", "how do I paint a house?")]
        )
    assert (harmful.labels.prompt_harm, harmless.labels.prompt_harm) == ("harmful", "unharmful")
    assert harmful.calibrated
    assert sum(harmful.kinds.values()) == pytest.approx(harmful.scores["prompt_harm"], abs=0.01)
    done = json.loads((folder.parent / "manifest.json").read_text())
    assert {fit["task"] for fit in done["fits"]} == {"prompt_harm", "refusal", "response_harm"}
    assert (folder.parent / "logits.npy").stat().st_size > 96 * 2 * 18 * 4
    curves = json.loads((folder / "calibration.json").read_text())["tasks"]
    assert [curves[t]["instant"]["threshold"] for t in ("prompt_harm", "refusal", "response_harm")] == [0.5, 0.25, 0.4]
    asked = json.loads((folder / "bands.json").read_text())
    assert {t for t in curves if curves[t]["instant"]["band"]} == set(asked)


def test_what_is_said_of_a_request_does_not_depend_on_the_reply(folder):
    engine, nano = MicroEngine(folder, threads=1), EncoderEngine(NANO_FOLDER, threads=1)
    pairs = [("how do I rob a house?", None), ("how do I rob a house?", "I will not help."), ("hi", "I will not help.")]
    width = nano.weight.shape[1]
    found, first = engine.score(pairs).features, nano.score(pairs).features
    assert np.array_equal(found[:, :width], first)
    read = found[:, width:]
    assert np.allclose(read[0, : 2 * WIDTH], read[1, : 2 * WIDTH], atol=0.05)  # products are of 8 bits a row
    assert not np.allclose(read[1, : 2 * WIDTH], read[2, : 2 * WIDTH], atol=0.05)
    assert not np.allclose(read[0, 2 * WIDTH :], read[1, 2 * WIDTH :], atol=0.05)


def test_adapters_change_what_the_layers_say(folder, tmp_path):
    from guardreasoner.export.micro import export_micro

    engine = MicroEngine(folder, threads=1)
    before = engine.score([("how do I paint a house?", None)]).features
    outputs = len(engine.outputs)
    export_micro(folder, checkpoint(outputs, np.random.default_rng(1)), layers=LAYERS, freeze=FREEZE)
    after = MicroEngine(folder, threads=1).score([("how do I paint a house?", None)]).features
    export_micro(folder, checkpoint(outputs, np.random.default_rng(0)), layers=LAYERS, freeze=FREEZE)
    again = MicroEngine(folder, threads=1).score([("how do I paint a house?", None)]).features
    assert not np.allclose(before, after)
    assert np.array_equal(before, again)
    with pytest.raises(EngineError, match="no layer 99"):
        export_micro(folder, {}, layers=99, freeze=0)


def test_long_texts_are_cut_in_the_middle_and_late_ones_are_not_read(folder):
    engine = MicroEngine(folder, threads=1)
    words = " ".join(f"w{i}" for i in range(150))
    assert len(engine.tokenizer.judged(words)) > ROOM
    assert np.isfinite(engine.score([(words, None)]).logits).all()
    with pytest.raises(EngineTimeout):
        engine.score([("hi", None)], deadline=0.0)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.score([("hi", None)])


def test_a_folder_whose_heads_do_not_fit_is_refused(folder, tmp_path):
    for name in ("heads.json", "calibration.json"):
        (tmp_path / name).write_bytes((NANO_FOLDER / name).read_bytes())
    meta = json.loads((folder / "guard.json").read_text())
    meta["networks"] = {"encoder": str(NANO_FOLDER), "decoder": str(folder)}
    (tmp_path / "guard.json").write_text(json.dumps(meta))
    with pytest.raises(ConfigError, match="does not fit its two networks"):
        load_guard(str(tmp_path))
    (tmp_path / "guard.json").write_text(json.dumps({**meta, "networks": {"encoder": "x"}}))
    with pytest.raises(ConfigError, match="does not name the folders of two networks"):
        load_guard(str(tmp_path))
    meta["networks"]["decoder"] = str(MINI_FOLDER.parent)
    (tmp_path / "guard.json").write_text(json.dumps(meta))
    with pytest.raises(ConfigError, match="tokenizer"):
        load_guard(str(tmp_path))
