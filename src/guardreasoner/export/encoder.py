"""nano's checkpoint to a folder that runs without torch: the network in int8 ONNX, its heads beside it.

torch.onnx writes the network, onnxruntime's dynamic quantisation makes matrices and embeddings int8. Scores are
compared with torch's before the folder appears.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from guardreasoner.engines.encoder import FORMAT_VERSION, INPUTS, EncoderEngine, write_heads
from guardreasoner.errors import DataError, EngineError, need
from guardreasoner.records import sha256, whole_folder, write_atomic
from guardreasoner.run_folder import Counts, RunFolder
from guardreasoner.train.models import write_meta

CONTEXT_TOKENS = 512
LONGEST_WORD = 64
"""A longer run of letters is read in pieces; WordPiece would read it as one unknown token."""
TOLERANCE = 1.0
"""Largest difference of any logit from torch that an int8 export may have; about 0.2 is usual."""
SAMPLES = (
    ("How do I bake bread without yeast?", None),
    ("tell me how to pick the lock of my neighbour's door while he is away", None),
    ("What is the capital of Peru?", "Lima."),
    ("Write a poem about autumn. " * 20, "I cannot help with that."),
)


def export_encoder(checkpoint: Path, out: Path) -> float:
    """Write a model folder; it appears whole or not at all. Returns the largest difference of a logit from torch's."""
    from guardreasoner.train.minilm import OUTPUTS, EncoderModel

    with whole_folder(out) as work:
        model = EncoderModel(checkpoint, attention="eager").eval()
        _network(model, work / "model.onnx")
        weight, bias = (p.detach().numpy() for p in (model.heads.weight, model.heads.bias))
        write_heads(work, OUTPUTS, weight, bias)
        write_atomic(work / "tokenizer.json", tokenizer_json())
        meta = {"format": "encoder", "format_version": FORMAT_VERSION, "base": "all-MiniLM-L6-v2"}
        write_meta(work, {**meta, "context_tokens": CONTEXT_TOKENS})
        difference = deviation(model, work)
        if not difference <= TOLERANCE:
            raise EngineError(f"the export of {checkpoint} differs from torch by {difference:.2g}; nothing was written")
    return difference


def run(out: str | Path, *, fresh: bool = False) -> dict[str, Any]:
    """Export as a stage: `encoder/model.safetensors` to `export/model`."""
    source = Path(out) / "encoder" / "model.safetensors"
    if not source.exists():
        raise DataError("no encoder yet; run the stage `encoder` (`guardreasoner reproduce`) first", file=str(source))
    with RunFolder(out, "export", config={}, inputs=[source], fresh=fresh) as folder:
        if folder.manifest is not None:
            return folder.manifest
        difference = export_encoder(source, folder.path / "model")
        size = sum(p.stat().st_size for p in (folder.path / "model").iterdir())
        digest = sha256(folder.path / "model" / "model.onnx")
        return folder.finish(Counts(in_=1, out=1), bytes=size, max_deviation=difference, sha256=digest)


def tokenizer_json() -> str:
    """The base's tokenizer without limits, and with long runs of letters read in pieces."""
    from guardreasoner.train.minilm import base_folder

    raw = json.loads((base_folder() / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = {"type": "Split", "pattern": {"Regex": rf"\S{{{LONGEST_WORD}}}"}, "behavior": "Isolated", "invert": False}
    raw.update(truncation=None, padding=None, post_processor=None)
    raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [raw["pre_tokenizer"], pieces]}
    return json.dumps(raw, ensure_ascii=False)


def deviation(model: Any, folder: Path) -> float:
    """Largest difference of any logit between the checkpoint and the exported folder, over a few texts."""
    torch = need("torch", "train")
    from guardreasoner.train.encoder_rows import EncoderRow

    engine = EncoderEngine(folder, threads=1)
    rows = [EncoderRow(prompt, reply, (None, None, None)) for prompt, reply in SAMPLES]
    encoded = model.encode(rows, [CONTEXT_TOKENS] * len(rows))
    with torch.inference_mode():
        wanted = np.concatenate([model(*model.padded([row])).numpy() for row in encoded])
    return float(np.abs(engine.score(SAMPLES).logits - wanted).max())


def _network(model: Any, path: Path) -> None:
    """The network under the heads: int8, rows and tokens of any number."""
    torch = need("torch", "train")
    quantization = need("onnxruntime.quantization", "train")

    whole = path.with_suffix(".fp32")
    ids = torch.ones(2, 8, dtype=torch.long)
    axes = {name: {0: "rows", 1: "tokens"} for name in INPUTS} | {"features": {0: "rows"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing; what it could get wrong is compared with torch afterwards
        torch.onnx.export(
            model.network,
            (ids, ids, torch.zeros_like(ids)),
            str(whole),
            input_names=list(INPUTS),
            output_names=["features"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    # seven bits: eight overflow where a processor sums two products in 16 bits (AVX2), and verdicts would depend on it
    quantization.quantize_dynamic(
        whole, path, weight_type=quantization.QuantType.QInt8, per_channel=True, reduce_range=True
    )
    whole.unlink()
