"""Checkpoint to ONNX model folder: what the embedded engine loads.

    model.onnx            the graph; its weights are in model.onnx.data
    genai_config.json     sizes and tensor names, as onnxruntime-genai writes and reads them
    tokenizer.json        with tokenizer_config.json and the chat template, copied

onnxruntime-genai's builder makes the graph, of any architecture that it knows.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from guardreasoner.engines.decoding import Extension
from guardreasoner.engines.hardware import available_cores
from guardreasoner.engines.hf import load_model
from guardreasoner.engines.onnx import OnnxBatch, OnnxModel
from guardreasoner.errors import ConfigError, DataError, EngineError, need, printable
from guardreasoner.export.embeddings import share_embeddings
from guardreasoner.export.fidelity import compare
from guardreasoner.export.low_rank import on_grid
from guardreasoner.records import read_records, whole_folder
from guardreasoner.run_folder import Counts, RunFolder
from guardreasoner.train import smollm
from guardreasoner.train.models import read_meta, write_meta
from guardreasoner.types import Example

GRIDS = {"smollm2": smollm.grids}
"""Bases that came in 4 bits."""
Precision = Literal["int8", "int4", "fp32"]
COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "guard.json")
BLOCK = 64
"""Weights that share a scale at 8 bits."""
FP32_TOLERANCE = 1e-3
"""An unquantised export that differs more than this from torch is a fault; measured differences are about 1e-5."""


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What the export stage needs to know."""

    precision: Precision = "int8"
    """int4 is smaller, and visibly worse on small models. Tied embeddings are 8 bits too in int8
    (`export/embeddings.py`)."""
    rank: int | None = None
    """int4 of a base that came in 4 bits itself (smollm2) and was trained with adapters of this rank at most: its own 4
    bits stay, and the change is stored beside them in float16 (`export/low_rank.py`). None = weights are
    rounded."""
    check: bool = True
    """Compare logits with torch after writing."""
    guard: Mapping[str, Any] = field(default_factory=dict)
    """What guard.json says besides: `concludes` (the model ends the reasoning on each task with a fixed conclusion, and
    P is read there), `first_look` (it was trained to read another guard's verdict), `budgets` (tokens of reasoning in
    `short` and `full`), `languages` (those it was validated on)."""
    compare: int = 0
    """Validation rows on which labels and ranking in `instant` are compared with the checkpoint in float32; an export
    that differs too much is refused (`export/fidelity.py`)."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made."""

    folder: Path
    precision: Precision
    bytes: int
    """Size of the whole folder."""
    max_deviation: float | None
    """Largest difference of any logit from torch on fixed random token sequences; None = not compared."""


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    precision: Precision = "int8",
    rank: int | None = None,
    check: bool = True,
) -> Exported:
    """Write an ONNX model folder; `out` appears whole or not at all, and replaces what was there.

    `precision`, `rank` and `check` are those of `ExportConfig`.
    """
    source, target = Path(checkpoint), Path(out)
    config = read_config(source)
    if not (source / "tokenizer.json").is_file():
        raise ConfigError(f"{source} has no tokenizer.json; save the tokenizer beside the checkpoint")
    with whole_folder(target) as work:
        if rank is not None:
            _export_grid(source, config, work, precision, rank)
        else:
            _build(source, config, work, precision)
        copy_small_files(source, work)
        deviation = deviation_from_torch(source, work) if check else None
        if precision == "fp32" and deviation is not None and not deviation <= FP32_TOLERANCE:
            raise EngineError(f"the fp32 export of {source} differs from torch by {deviation:.2g}; nothing was written")
    size = sum(p.stat().st_size for p in target.rglob("*") if p.is_file())
    return Exported(target, precision, size, deviation)


def run(
    checkpoint: str | Path, out: str | Path, config: ExportConfig | None = None, *, fresh: bool = False
) -> Exported:
    """Export as a stage: `out/export/model` and `out/export/manifest.json`; a finished stage is not done again."""
    config = config or ExportConfig()
    read_config(Path(checkpoint))
    with RunFolder(out, "export", config=asdict(config), inputs=[checkpoint], fresh=fresh) as folder:
        target = folder.path / "model"
        done = folder.manifest
        if done is not None and target.is_dir():
            return Exported(target, config.precision, done["bytes"], done["max_deviation"])
        made = export(checkpoint, target, precision=config.precision, rank=config.rank, check=config.check)
        if config.guard:
            write_meta(target, {**read_meta(target), **config.guard})
        fidelity = _fidelity(Path(checkpoint), Path(out), target, config) if config.compare else None
        folder.finish(Counts(in_=1, out=1), bytes=made.bytes, max_deviation=made.max_deviation, fidelity=fidelity)
        return made


def is_quantised(folder: Path) -> bool:
    """Whether a folder holds an ONNX model whose weights are rounded (int8, int4)."""
    model = folder / "model.onnx"
    if not model.is_file():
        return False
    graph = need("onnx", "train").load(str(model), load_external_data=False).graph
    return any("NBits" in node.op_type or "Quantize" in node.op_type for node in graph.node)


def _fidelity(checkpoint: Path, out: Path, target: Path, config: ExportConfig) -> dict[str, Any]:
    rows = out / "synthesize" / "validation.jsonl"
    if not rows.exists():
        raise DataError("no validation rows to compare on; name sources in data.leave_out", file=str(rows))
    wire = read_meta(checkpoint).get("wire", "raw")
    try:
        examples = list(read_records(Example, rows))
        return asdict(compare(checkpoint, target, examples, wire=wire, rows=config.compare, mode="instant"))
    except EngineError:
        shutil.rmtree(target)
        raise


def read_config(checkpoint: Path) -> dict[str, Any]:
    """The `config.json` of a checkpoint folder."""
    try:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(f"{checkpoint} is not a checkpoint: it has no readable config.json") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{checkpoint}/config.json is not a JSON object")
    return config


def load_weights(checkpoint: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """All tensors of a checkpoint's safetensors files as float32; pickled weights are never loaded."""
    files = sorted(checkpoint.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{checkpoint} holds no *.safetensors; save the model with safe serialization")
    load = need("safetensors.torch", "train").load_file
    return {name: tensor.float().numpy() for file in files for name, tensor in load(file).items()}


def copy_small_files(source: Path, folder: Path) -> None:
    """Copy the tokenizer, its chat template and guard.json, as far as they are there."""
    for name in COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _build(source: Path, config: Mapping[str, Any], folder: Path, precision: Precision) -> None:
    if not any(source.glob("*.safetensors")):
        raise ConfigError(f"{source} holds no *.safetensors; save the model with safe serialization")
    need("onnxruntime_genai", "train")
    need("onnx_ir", "train")
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(folder)]
        command += ["-p", precision, "-e", "cpu", "-c", cache, "--extra_options", "prune_lm_head=true"]
        command += [f"block_size={BLOCK}"] if precision == "int8" else []
        settings = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    if done.returncode or not (folder / "model.onnx").is_file():
        reason = (done.stderr or done.stdout).strip().rsplit("\n", 1)[-1]
        raise ConfigError(f"onnxruntime-genai's builder cannot export {source}: {printable(reason, 200)}")
    if precision == "int8" and config.get("tie_word_embeddings") and config["hidden_size"] % BLOCK == 0:
        share_embeddings(folder)


def _export_grid(source: Path, config: Mapping[str, Any], folder: Path, precision: Precision, rank: int) -> None:
    base = read_meta(source).get("base")
    if precision != "int4" or base not in GRIDS or not config.get("tie_word_embeddings"):
        raise ConfigError(
            f"rank goes with precision int4 and a base that came in 4 bits itself ({', '.join(GRIDS)}), not with "
            f"{precision} and {base or 'a base that guard.json does not name'}; leave rank out"
        )
    grids = GRIDS[base]()
    _build(source, config, folder, "fp32")
    on_grid(folder, load_weights(source), grids, rank=rank)


def deviation_from_torch(checkpoint: Path, folder: Path) -> float:
    """Largest difference between an exported folder's logits and torch's, on fixed random token sequences.

    Prompts of several lengths, then a few single tokens: both paths of the cache are compared.
    """
    torch = need("torch", "train")
    model = load_model(str(checkpoint), "causal", revision=None, dtype="float32", device="cpu")
    runtime = OnnxModel(folder, threads=available_cores())
    rng = np.random.default_rng(0)
    worst = 0.0
    for length in (3, 17, min(96, runtime.sizes.context - 4)):
        ids = rng.integers(0, model.config.vocab_size, length + 4).tolist()
        with torch.inference_mode():
            wanted = model(input_ids=torch.tensor([ids])).logits[0].float().numpy()
        batch = OnnxBatch(runtime, 1, len(ids))
        got = [batch.feed({0: Extension(0, ids[:length])})[0]]
        got += [batch.feed({0: Extension(at, ids[at : at + 1])})[0] for at in range(length, len(ids))]
        worst = max(worst, *(float(np.abs(g - w).max()) for g, w in zip(got, wanted[length - 1 :], strict=True)))
    return worst
