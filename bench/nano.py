"""nano beside its own weights under transformers, and beside a plain encoder of its size, in one run.

    python bench/nano.py [--guard nano] [--checkpoint RUN/sft/checkpoint] [--limit 64] [--batch 32] [--threads 2]

The first table is `guardreasoner bench --against CHECKPOINT`: every contestant in a process of its own. The second asks
what a reasoning guard costs where it does not reason: `instant` on requests of at most 60 tokens, beside one pass of a
bidirectional int8 encoder with the same layers on the same texts (no output layer, no answer block).
"""

import argparse
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from rich.console import Console
from rich.table import Table

from guardreasoner.engines.onnx import OnnxEngine, load_runtime
from guardreasoner.evaluate.speed import quantile
from guardreasoner.guards.load import load_guard
from guardreasoner.plans import Judged
from guardreasoner.records import read_jsonl
from guardreasoner.types import Exchange

TEXTS = Path(__file__).parent.parent / "src" / "guardreasoner" / "data" / "smoke.jsonl"
LONGEST = 60


def encoder_of(decoder: Path, out: Path) -> Path:
    """The decoder's network without causal mask, cache and output layer: attention over the whole text."""
    model = onnx.load(str(decoder))
    graph = model.graph
    nodes, last = [], ""
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            parts = [f"{node.output[0]}.{part}" for part in "qkv"]
            heads = next(a.i for a in node.attribute if a.name == "num_heads")
            nodes.append(helper.make_node("Split", [node.input[0]], parts, axis=-1, num_outputs=3))
            nodes.append(
                helper.make_node("MultiHeadAttention", parts, node.output[:1], domain="com.microsoft", num_heads=heads)
            )
        else:
            nodes.append(node)
        if node.output[0].endswith(".norm2.out"):
            last = node.output[0]
    needed, kept = {last}, []
    for node in reversed(nodes):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    inputs = [i for i in graph.input if i.name in needed]
    output = helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None)
    weights = [i for i in graph.initializer if i.name in needed]
    made = helper.make_model(
        helper.make_graph(kept[::-1], "encoder", inputs, [output], weights),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    onnx.save(made, str(out))
    return out


def time_each(work, items, rounds: int) -> tuple[list[float], list[float]]:
    """Wall and CPU milliseconds of every item, `rounds` times over."""
    wall, cpu = [], []
    for _ in range(rounds):
        for item in items:
            begun, burnt = time.perf_counter(), time.process_time()
            work(item)
            wall.append((time.perf_counter() - begun) * 1000)
            cpu.append((time.process_time() - burnt) * 1000)
    return wall, cpu


def beside_encoder(guard_name: str, *, threads: int, limit: int, rounds: int, folder: Path) -> Table:
    """`instant` and the encoder on the same short requests."""
    guard = load_guard(guard_name, mode="instant", threads=threads)
    engine = guard.engine
    assert isinstance(engine, OnnxEngine), "the guard must run on the onnx engine"
    rows = [Exchange(str(i), r["prompt"]) for i, (_, r) in enumerate(read_jsonl(TEXTS)) if r["prompt"]]
    rows = list(islice((x for x in rows if len(engine.offsets(x.prompt)) <= LONGEST), limit))
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = encoder_of(engine.model.folder / engine.model.sizes.filename, folder / "encoder.onnx")
    session = runtime.InferenceSession(str(path), options, disabled_optimizers=["SkipLayerNormFusion"])

    def encode(exchange: Exchange) -> None:
        ids = np.array([engine.encoder.encode((Judged(exchange.prompt),)).ids], np.int64)
        session.run(None, {"input_ids": ids, "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None]})

    table = Table(title=f"{len(rows)} requests of at most {LONGEST} tokens, {rounds} rounds", box=None)
    for column in ("", "p50 ms", "p95 ms", "CPU ms", "×", "CPU ×"):
        table.add_column(column, justify="right" if column else "left")
    first = None
    for name, work in (("int8 encoder", encode), ("instant", lambda x: guard.judge([x]))):
        time_each(work, rows[:5], 1)
        wall, cpu = time_each(work, rows, rounds)
        found = statistics.median(wall), quantile(wall, 0.95), statistics.median(cpu)
        first = first or found
        ratios = found[0] / first[0], found[2] / first[2]
        table.add_row(name, *(f"{v:.2f}" for v in found), *(f"{r:.2f}" for r in ratios))
    guard.close()
    return table


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guard", default="nano")
    parser.add_argument("--checkpoint", help="the same weights as a transformers folder")
    parser.add_argument("--modes", default="instant,full,auto")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build"), help="where the encoder is written")
    args = parser.parse_args()
    command = [sys.executable, "-m", "guardreasoner", "bench", "--guard", args.guard, "--modes", args.modes]
    command += ["--limit", str(args.limit), "--batch", str(args.batch), "--threads", str(args.threads)]
    command += ["--against", args.checkpoint] if args.checkpoint else []
    subprocess.run(command, check=True)
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {"threads": args.threads, "limit": args.limit, "rounds": args.rounds, "folder": args.out}
    Console(highlight=False).print(beside_encoder(args.guard, **settings))


if __name__ == "__main__":
    main()
