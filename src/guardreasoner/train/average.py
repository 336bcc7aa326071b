"""The mean of the weights of several exported models: runs from one start that end in one basin judge better together.

    python -m guardreasoner.train.average OUT MODEL MODEL...

Weight averaging of fine-tuned models ("model soups", Wortsman et al. 2022, arXiv 2203.05482). The folders must hold the
same graph and tokenizer, as runs of one recipe from one base do. Quantised blocks are averaged as the numbers they
stand for and quantised again. Scores change, so the result has no calibration; everything else is the last model's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import ConfigError, GuardReasonerError, need
from guardreasoner.records import sha256, write_atomic
from guardreasoner.train.bert_graph import BLOCK, quantize

MODEL, RECORD = "model.onnx", "averaged.json"
CODES, SCALES = ".codes", ".scales"
Tensors = dict[str, NDArray[Any]]


def average(models: Sequence[str | Path], out: str | Path) -> Path:
    """Write the mean of exported int8 or fp32 folders to `out`, which must not exist.

    Raises:
        ConfigError: fewer than two folders, folders that do not fit together, or `out` is there.
    """
    folders, target = [Path(m) for m in models], Path(out)
    if len(folders) < 2:
        raise ConfigError("give at least two model folders to average")
    if target.exists():
        raise ConfigError(f"{target} is already there; give another folder")
    onnx = need("onnx", "train")
    graphs = [_load(onnx, folder) for folder in folders]
    for folder in folders[:-1]:
        if sha256(folder / "tokenizer.json") != sha256(folders[-1] / "tokenizer.json"):
            raise ConfigError(
                f"{folder} and {folders[-1]} have different tokenizers, so their weights do not correspond"
            )
    tensors = [_tensors(onnx, graph) for graph in graphs]
    for folder, one in zip(folders, tensors, strict=True):
        if {k: v.shape for k, v in one.items()} != {k: v.shape for k, v in tensors[-1].items()}:
            raise ConfigError(f"{folder} and {folders[-1]} do not hold the same graph")
    made = _mean(tensors)
    for initializer in graphs[-1].graph.initializer:
        if initializer.name in made:
            initializer.CopyFrom(onnx.numpy_helper.from_array(made[initializer.name], initializer.name))
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for path in folders[-1].iterdir():
            if path.name not in (MODEL, "calibration.json", "manifest.json"):
                shutil.copyfile(path, work / path.name)
        onnx.save(graphs[-1], str(work / MODEL))
        write_atomic(work / RECORD, json.dumps({"models": [sha256(f / MODEL) for f in folders]}) + "\n")
        work.chmod(0o755)
        os.replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _load(onnx: Any, folder: Path) -> Any:
    if not (folder / MODEL).is_file():
        raise ConfigError(f"{folder} holds no {MODEL}; export the checkpoint first")
    return onnx.load(str(folder / MODEL))


def _tensors(onnx: Any, graph: Any) -> Tensors:
    return {i.name: onnx.numpy_helper.to_array(i) for i in graph.graph.initializer}


def _mean(tensors: Sequence[Tensors]) -> Tensors:
    made: Tensors = {}
    for name, last in tensors[-1].items():
        if name.endswith(CODES):
            scales = name.removesuffix(CODES) + SCALES
            if last.size != tensors[-1][scales].size * BLOCK:
                raise ConfigError("only int8 and fp32 exports can be averaged")
            codes, made[scales] = quantize(np.mean([_weights(one, name) for one in tensors], axis=0), 8)
            made[name] = codes.reshape(last.shape)
        elif last.dtype == np.float32 and not name.endswith(SCALES):
            made[name] = np.asarray(np.mean([one[name] for one in tensors], axis=0, dtype=np.float32))
    return made


def _weights(tensors: Tensors, name: str) -> NDArray[np.float32]:
    """What the 8-bit blocks of a tensor stand for, shape (rows, columns)."""
    codes, scales = tensors[name], tensors[name.removesuffix(CODES) + SCALES]
    blocks = (codes.reshape(len(codes), -1, BLOCK).astype(np.float32) - 128) * scales[:, :, None]
    whole: NDArray[np.float32] = blocks.reshape(len(codes), -1)
    return whole


def main(words: Sequence[str]) -> int:
    """Entry point."""
    if len(words) < 3:
        print("usage: python -m guardreasoner.train.average OUT MODEL MODEL...", file=sys.stderr)
        return 2
    try:
        average(words[1:], words[0])
    except GuardReasonerError as error:
        print(f"average: {error}", file=sys.stderr)
        return 1
    print(f"{words[0]}: the mean of {len(words) - 1} models; calibrate it before use")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
