"""micro as a stage of a recipe: nano and the stage `decoder`, joined into one guard folder.

    DIR/micro/model/      micro.onnx beside mini's weights, heads over both networks' features, calibration.json
    DIR/micro/model/bands.json      where `auto` asks micro about what nano has judged
    DIR/micro/logits.npy  what both networks say of each validation row

The log-odds of both count half each: weights that are fitted on some sources rank others worse. What is fitted on the
validation rows is what nano's calibration is too, a line and a threshold a task.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.engines.encoder import FORMAT_VERSION, read_heads, write_heads
from guardreasoner.engines.micro import NETWORK, MicroEngine
from guardreasoner.errors import DataError, InputTooLong, need
from guardreasoner.evaluate.calibrate import (
    MIN_PER_CLASS,
    CalibrateConfig,
    Fit,
    Target,
    as_asked,
    as_row,
    band,
    fit,
)
from guardreasoner.evaluate.run_benchmarks import draw
from guardreasoner.export.encoder import CONTEXT_TOKENS
from guardreasoner.export.micro import export_micro
from guardreasoner.guards.calibration import Calibration, read_calibration
from guardreasoner.guards.encoder import pair_of
from guardreasoner.guards.ours import MINI_FOLDER
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
    """Join `export/model` and `decoder/model.safetensors`; what was judged is not judged again after a stop.

    Args:
        layers: of the decoder.
        freeze: of these, the lowest, that have no adapters.
    """
    root = Path(out)
    nano, weights, rows = root / "export" / "model", root / "decoder" / "model.safetensors", root / "encoder"
    inputs = [nano / "model.onnx", nano / "calibration.json", weights, rows / "validation.jsonl"]
    if missing := [path for path in inputs if not path.exists()]:
        raise DataError("not there yet; run the stages before `micro` first", file=str(missing[0]))
    asked = {**asdict(config), "layers": layers, "freeze": freeze}
    with RunFolder(out, "micro", config=asked, inputs=inputs, fresh=fresh) as folder:
        if folder.manifest is not None:
            return folder.manifest
        examples = list(read_records(Example, rows / "validation.jsonl"))
        met = list(as_asked(draw(examples, config.limit, "0") if config.limit else examples))
        model = folder.path / "model"
        outputs, *own = read_heads(nano)
        first: Heads = (own[0], own[1])
        second = _networks(model, outputs, first, weights, layers, freeze)
        logits = _logits(folder, model, first, second, met)
        weight = (np.concatenate([first[0], second[0]], axis=1) / 2).astype(np.float32)
        write_heads(model, outputs, weight, ((first[1] + second[1]) / 2).astype(np.float32))
        before = read_calibration(nano / "calibration.json")
        joins = [_join(i, task, logits, met, before, config) for i, task in enumerate(TASKS)]
        curves = {
            (j.fit.task, "instant"): replace(
                j.fit.curve, band=j.fit.curve.band if j.pays else None, piece=config.pieces.get(j.fit.task.value)
            )
            for j in joins
        }
        found = Calibration(curves, f"{len(met)} questions of left-out sources")
        write_atomic(model / "calibration.json", json.dumps(found.as_dict(), indent=2) + "\n")
        bands = {j.fit.task.value: j.asked for j in joins if j.pays}
        write_atomic(model / "bands.json", json.dumps(bands, indent=2) + "\n")
        print("\n".join(map(str, joins)), file=sys.stderr)
        told = [{**as_row(j.fit), **{k: v for k, v in asdict(j).items() if k != "fit"}, "pays": j.pays} for j in joins]
        return folder.finish(Counts(in_=len(met), out=len(met)), fits=told, sha256=sha256(model / NETWORK))


@dataclass(frozen=True, slots=True)
class Join:
    """One task: the curve over the mean of both log-odds, and what it is worth beside nano."""

    fit: Fit
    """Its curve's band is where micro is unsure itself, and `auto` asks mini."""
    asked: tuple[float, float] | None
    """nano's P within which `auto` asks micro."""
    first: float
    """AUROC of nano."""
    second: float
    """AUROC of the decoder."""
    sent: int
    """Rows inside the band."""
    mended: int
    """Of those, nano's mistakes that micro does not make."""
    spoiled: int
    """And its right answers that micro gets wrong."""

    @property
    def pays(self) -> bool:
        """Whether both rank better than nano and mend more inside the band than they spoil."""
        return self.fit.auroc > self.first and self.mended > self.spoiled

    def __str__(self) -> str:
        return (
            f"{self.fit.task.value:<14} n {self.fit.n:>5}  nano {self.first:.3f}  decoder {self.second:.3f}  both "
            f"{self.fit.auroc:.3f}; auto sends {self.sent}, mends {self.mended}, spoils {self.spoiled}"
        )


def _join(
    column: int, task: Task, logits: Floats, met: Sequence[Example], nano: Calibration, config: CalibrateConfig
) -> Join:
    wanted = config.sources.get(task.value)
    rows = [
        i
        for i, e in enumerate(met)
        if e.gold[task] is not None
        and (wanted is None or e.exchange.source in wanted)
        and not np.isnan(logits[i, 0, 0])
    ]
    y = np.array([met[i].gold[task] == TASKS[task].positive for i in rows], dtype=bool)
    if min(y.sum(), (~y).sum()) < MIN_PER_CLASS:
        raise DataError(
            f"fewer than {MIN_PER_CLASS} validation rows of a label on {task.value}; leave more sources out"
        )
    one, two = (logits[rows, k, column].astype(float) for k in (0, 1))
    mean = (one + two) / 2
    found = fit(
        mean,
        y,
        task=task,
        mode="instant",
        target=Target.parse(config.targets.get(task.value, config.target)),
        budget=config.budget,
    )
    old = nano.curve(task, "instant")
    first = np.array([old.probability(x) for x in one])
    both = np.array([found.curve.probability(x) for x in mean])
    within = band(first, old.threshold, config.larger_budget)
    sent = (first > within[0]) & (first < within[1]) if within else np.zeros(len(y), bool)
    was, now = (first >= old.threshold) == y, (both >= found.curve.threshold) == y
    score = need("sklearn.metrics", "eval").roc_auc_score
    return Join(
        found,
        within,
        float(score(y, one)),
        float(score(y, two)),
        int(sent.sum()),
        int((sent & now & ~was).sum()),
        int((sent & was & ~now).sum()),
    )


def _networks(model: Path, outputs: Sequence[str], first: Heads, weights: Path, layers: int, freeze: int) -> Heads:
    """The folder with both networks, and the decoder's heads over its features: (outputs, features), (outputs,)."""
    load_file = need("safetensors.numpy", "train").load_file
    model.mkdir(exist_ok=True)
    for name in SHARED:
        if not (model / name).exists():
            half = shutil.copy(MINI_FOLDER / name, model / f"{name}.half")
            Path(half).replace(model / name)
    tensors = load_file(weights)
    export_micro(model, tensors, layers=layers, freeze=freeze)
    weight, bias = tensors["heads.weight"], tensors["heads.bias"]
    write_heads(model, outputs, np.concatenate([first[0], np.zeros_like(weight)], axis=1), first[1])
    meta = {
        "format": "encoder",
        "format_version": FORMAT_VERSION,
        "base": "all-MiniLM-L6-v2, SmolLM2-135M",
        "context_tokens": CONTEXT_TOKENS,
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
