"""micro as a stage of a recipe: nano and its teacher, joined into one guard folder.

    DIR/micro/model/      micro.onnx beside mini's weights, heads over both networks' features, calibration.json
    DIR/micro/model/bands.json      where `auto` asks micro about what nano has judged
    DIR/micro/logits.npy  what both networks say of each validation row

Per task, the log-odds of both are weighted by a logistic regression on the validation rows. That gives a P,
so the calibration adds thresholds alone, by the rules that nano's are chosen by.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.engines.encoder import FORMAT_VERSION, read_heads, write_heads
from guardreasoner.engines.micro import MicroEngine
from guardreasoner.errors import DataError, InputTooLong, need
from guardreasoner.evaluate.calibrate import CalibrateConfig, Target, as_asked, choose_threshold
from guardreasoner.evaluate.fit_stack import StackFit, TwoAnswers, as_text, fit_rows
from guardreasoner.evaluate.run_benchmarks import draw
from guardreasoner.export.micro import export_micro
from guardreasoner.guards.calibration import Calibration, Curve, read_calibration
from guardreasoner.guards.cascade import Stack
from guardreasoner.guards.encoder import pair_of
from guardreasoner.guards.ours import MINI_FOLDER
from guardreasoner.metrics import sigmoid
from guardreasoner.records import read_records, sha256, write_atomic
from guardreasoner.run_folder import Counts, RunFolder
from guardreasoner.train.models import write_meta
from guardreasoner.types import TASKS, Example, Task

SHARED = ("model.onnx", "model.onnx.data", "tokenizer.json", "tokenizer_config.json", "genai_config.json")
"""Of mini's folder."""
KEPT_EVERY = 50
Floats = NDArray[np.float32]
Heads = tuple[Floats, Floats]
"""Weights (outputs, features) and biases (outputs,)."""


def run(out: str | Path, config: CalibrateConfig, *, layers: int, freeze: int, fresh: bool = False) -> dict[str, Any]:
    """Join `export/model` and `teacher/model.safetensors`; what was judged is not judged again after a stop.

    Args:
        layers: of the teacher.
        freeze: of these, the lowest, that have no adapters.
    """
    root = Path(out)
    nano, weights, rows = root / "export" / "model", root / "teacher" / "model.safetensors", root / "encoder"
    inputs = [nano / "model.onnx", nano / "calibration.json", weights, rows / "validation.jsonl"]
    with RunFolder(
        out, "micro", config={**asdict(config), "layers": layers, "freeze": freeze}, inputs=inputs, fresh=fresh
    ) as folder:
        if folder.manifest is not None:
            return folder.manifest
        examples = list(read_records(Example, rows / "validation.jsonl"))
        met = list(as_asked(draw(examples, config.limit, "0") if config.limit else examples))
        model = folder.path / "model"
        second = _networks(model, nano, weights, layers, freeze)
        outputs, *first = read_heads(nano)
        logits = _logits(folder, model, (first[0], first[1]), second, met)
        curves = read_calibration(nano / "calibration.json")
        fits = _fits(logits, met, curves, config)
        print(as_text(fits), file=sys.stderr)
        stacks = {fit.task: fit.stack for fit in fits}
        write_heads(model, outputs, *_joined(outputs, (first[0], first[1]), second, stacks, curves))
        found = Calibration(_curves(logits, met, stacks, curves, config), f"{len(met)} questions of left-out sources")
        write_atomic(model / "calibration.json", json.dumps(found.as_dict(), indent=2) + "\n")
        bands = {fit.task.value: list(fit.band) for fit in fits if fit.band and fit.pays_in_auto}
        write_atomic(model / "bands.json", json.dumps(bands, indent=2) + "\n")
        told = [{**asdict(fit), "pays": fit.pays, "pays_in_auto": fit.pays_in_auto} for fit in fits]
        return folder.finish(Counts(in_=len(met), out=len(met)), fits=told, sha256=sha256(model / "micro.onnx"))


def _networks(model: Path, nano: Path, weights: Path, layers: int, freeze: int) -> Heads:
    """The folder with both networks, and the teacher's heads over its features: (outputs, features), (outputs,)."""
    load_file = need("safetensors.numpy", "train").load_file
    model.mkdir(exist_ok=True)
    for name in SHARED:
        if not (model / name).exists():
            shutil.copy(MINI_FOLDER / name, model / name)
    tensors = load_file(weights)
    export_micro(model, tensors, layers=layers, freeze=freeze)
    asked, replied = (tensors[f"heads.{i}.weight"] for i in (0, 1))
    weight = np.zeros((len(asked) + len(replied), asked.shape[1] + replied.shape[1]), np.float32)
    rows = [0, *range(3, len(weight))]
    weight[rows, : asked.shape[1]], weight[1:3, asked.shape[1] :] = asked, replied
    bias = np.zeros(len(weight), np.float32)
    bias[rows], bias[1:3] = tensors["heads.0.bias"], tensors["heads.1.bias"]
    outputs, first, first_bias = read_heads(nano)
    write_heads(model, outputs, np.concatenate([first, np.zeros_like(weight)], axis=1), first_bias)
    meta = {
        "format": "encoder",
        "format_version": FORMAT_VERSION,
        "base": "all-MiniLM-L6-v2, SmolLM2-135M",
        "context_tokens": 512,
    }
    write_meta(model, {**meta, "networks": {"encoder": "../../export/model", "decoder": "."}})
    return weight, bias


def _logits(folder: RunFolder, model: Path, first: Heads, second: Heads, met: Sequence[Example]) -> Floats:
    """What both networks say (rows, 2, outputs), as far as it is not there already; NaN where a text is too long."""
    path, width = folder.path / "logits.npy", first[0].shape[1]
    if not path.exists():
        kept = np.lib.format.open_memmap(path, "w+", np.float32, (len(met), 2, len(first[0])))
        kept[:] = np.nan
    kept = np.lib.format.open_memmap(path, "r+")
    engine = MicroEngine(model, threads=1)
    for i, example in enumerate(met):
        if np.isnan(kept[i, 0, 0]):
            with suppress(InputTooLong):
                features = engine.score([pair_of(example.exchange)]).features[0]
                kept[i, 0] = first[0] @ features[:width] + first[1]
                kept[i, 1] = second[0] @ features[width:] + second[1]
        if i % KEPT_EVERY == 0:
            kept.flush()
            folder.tick()
            print(f"micro: {i}/{len(met)}", file=sys.stderr)
    engine.close()
    return np.array(kept)


def _fits(logits: Floats, met: Sequence[Example], nano: Calibration, config: CalibrateConfig) -> list[StackFit]:
    curves = [nano.curve(t, "instant") for t in TASKS]
    rows = [
        TwoAnswers(
            example.exchange.source,
            {t: example.gold[t] for t in TASKS if _counts(t, example, config)},
            {t: curves[i].probability(float(one[i])) for i, t in enumerate(TASKS)},
            {t: sigmoid(float(two[i])) for i, t in enumerate(TASKS)},
        )
        for (one, two), example in zip(logits, met, strict=True)
        if not np.isnan(one[0])
    ]
    thresholds = {t: curve.threshold for t, curve in zip(TASKS, curves, strict=True)}
    return fit_rows(rows, budget=config.budget, thresholds=thresholds)


def _counts(task: Task, example: Example, config: CalibrateConfig) -> bool:
    wanted = config.sources.get(task.value)
    return wanted is None or example.exchange.source in wanted


def _joined(
    outputs: Sequence[str], first: Heads, second: Heads, stacks: Mapping[Task, Stack], nano: Calibration
) -> Heads:
    """Heads over the features of both: a task's by its fit, the others' half of each."""
    if missing := [t.value for t in TASKS if t not in stacks]:
        raise DataError(f"too few validation rows to join both networks on {', '.join(missing)}")
    left, right, constant = (np.full(len(outputs), x) for x in (0.5, 0.5, 0.0))
    for i, task in enumerate(TASKS):
        stack, (slope, intercept) = stacks[task], nano.curve(task, "instant").params
        left[i], right[i], constant[i] = stack.first * slope, stack.second, stack.first * intercept + stack.bias
    weight = np.concatenate([left[:, None] * first[0], right[:, None] * second[0]], axis=1)
    return weight.astype(np.float32), (left * first[1] + right * second[1] + constant).astype(np.float32)


def _curves(
    logits: Floats, met: Sequence[Example], stacks: Mapping[Task, Stack], nano: Calibration, config: CalibrateConfig
) -> dict[tuple[Task, str], Curve]:
    """Thresholds on the P of both, by the rules of the calibration."""
    made = {}
    for i, task in enumerate(TASKS):
        rows = [
            k
            for k, e in enumerate(met)
            if e.gold[task] is not None and _counts(task, e, config) and not np.isnan(logits[k, 0, 0])
        ]
        curve, stack = nano.curve(task, "instant"), stacks[task]
        said = [(curve.probability(float(logits[k, 0, i])), sigmoid(float(logits[k, 1, i]))) for k in rows]
        p = np.array([stack.probability(*both) for both in said])
        y = np.array([met[k].gold[task] == TASKS[task].positive for k in rows])
        aim = Target.parse(config.targets.get(task.value, config.target))
        threshold, piece = choose_threshold(p, y, aim), config.pieces.get(task.value)
        made[task, "instant"] = Curve("platt", (1.0, 0.0), threshold, None, piece)
    return made
