"""All stages of a recipe in order. Each resumes by itself, and one that is done is not done again.

    DIR/encoder  decoder  synthesize  sft  sft-VARIANT...  sample  mine  dpo
         export  calibrate  micro  evaluate

The training stages run in several processes where that is asked for; no other stage is started twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from guardreasoner.data.benchmarks import BENCHMARKS, data_folder, load_benchmark, local_file, title
from guardreasoner.data.everyday import shipped
from guardreasoner.data.mix import USES
from guardreasoner.engines.base import Engine
from guardreasoner.engines.load import load_engine
from guardreasoner.errors import ConfigError, DataError, need
from guardreasoner.evaluate import calibrate_stage
from guardreasoner.evaluate.run_benchmarks import evaluate
from guardreasoner.export import onnx
from guardreasoner.formats.guardreasoner import Wire
from guardreasoner.guards.load import behind, load_guard
from guardreasoner.records import dumps, read_jsonl, sha256
from guardreasoner.teach.imported import import_traces
from guardreasoner.teach.synthesize import synthesize
from guardreasoner.train.dpo import run_dpo
from guardreasoner.train.launch import launch
from guardreasoner.train.mine import run_mine
from guardreasoner.train.models import read_meta
from guardreasoner.train.recipe import EvaluateConfig, Recipe
from guardreasoner.train.sample import run_sample
from guardreasoner.train.sft import run_sft
from guardreasoner.types import Example

Manifest = dict[str, Any]


def reproduce(
    recipe: Recipe,
    source: str | Path,
    *,
    out: str | Path,
    data_dir: Path | None = None,
    variant: str | None = None,
    processes: int = 1,
    fresh: bool = False,
) -> Iterator[Manifest]:
    """Run the stages of a recipe; yields the manifest of each as it ends.

    Args:
        source: the recipe's name or file, for stages that are started in processes of their own.
        data_dir: the folder of the recipe's data folders.
        variant: only this R-SFT variant, on the traces of the same folder, evaluated beside the run's own model
            (`DIR/evaluate-VARIANT`); `baseline-mix` is the label-only twin that every recipe has.
    """
    root = Path(out)
    if {"sft", "dpo"} & set(recipe.stages):
        need("trl", "train")  # said now, and not after a teacher has written for hours
    if variant is not None:
        recipe.variant(variant)
        if "synthesize" in recipe.stages:
            yield _one("synthesize", recipe, source, root, data_dir=data_dir, processes=processes, fresh=False)
        yield _sft(recipe, variant, source, root, processes=processes, fresh=fresh)
        yield _evaluate(recipe, root, data_dir, fresh, variant=variant)
        return
    for name in recipe.stages:
        if name == "sft":
            for variant in models_to_train(recipe):
                yield _sft(recipe, variant, source, root, processes=processes, fresh=fresh)
        else:
            yield _one(name, recipe, source, root, data_dir=data_dir, processes=processes, fresh=fresh)


def models_to_train(recipe: Recipe) -> tuple[str, ...]:
    """`sft` and the variants that sampling uses; where nothing is sampled (ablations), every variant."""
    if "sample" not in recipe.stages:
        return ("sft", *recipe.variants)
    return ("sft", *(name for name in recipe.variants if name in recipe.sample.models))


def _one(
    name: str, recipe: Recipe, source: str | Path, root: Path, *, data_dir: Path | None, processes: int, fresh: bool
) -> Manifest:
    stages: dict[str, Callable[[], Manifest]] = {
        "decoder": lambda: _encoder("decoder", recipe, root, data_dir, fresh),
        "encoder": lambda: _encoder("encoder", recipe, root, data_dir, fresh),
        "synthesize": lambda: synthesize_stage(recipe, root, data_dir=data_dir, fresh=fresh),
        "sample": lambda: sample_stage(recipe, root, fresh=fresh),
        "mine": lambda: run_mine(recipe.mine, out=root, fresh=fresh),
        "dpo": lambda: _dpo(recipe, source, root, processes=processes, fresh=fresh),
        "export": lambda: export_stage(recipe, root, fresh=fresh),
        "calibrate": lambda: calibrate_stage.run(root, recipe.calibrate, first=recipe.sft.first_look, fresh=fresh),
        "micro": lambda: _micro(recipe, root, fresh),
        "evaluate": lambda: _evaluate(recipe, root, data_dir, fresh),
    }
    return stages[name]()


def _encoder(
    stage: Literal["encoder", "decoder"], recipe: Recipe, root: Path, data_dir: Path | None, fresh: bool
) -> Manifest:
    from guardreasoner.train.encoder import run

    if data_dir is None:
        raise ConfigError("the recipe reads the data folder; give --data DIR or set GUARDREASONER_DATA")
    return run(stage, root, data_dir, recipe.encoder if stage == "encoder" else recipe.decoder, fresh=fresh)


def _micro(recipe: Recipe, root: Path, fresh: bool) -> Manifest:
    from guardreasoner.export.micro_stage import run

    decoder = recipe.decoder
    return run(root, recipe.calibrate, layers=decoder.layers, freeze=decoder.freeze, fresh=fresh)


def synthesize_stage(recipe: Recipe, root: Path, *, data_dir: Path | None = None, fresh: bool = False) -> Manifest:
    """Traces for the recipe: published ones, or a teacher's for its seed sets or its data section."""
    if recipe.traces:
        return import_traces(recipe.traces, out=root, fresh=fresh)
    if recipe.seeds:
        data = replace(recipe.data, seeds=recipe.seeds, use=USES)
        return synthesize(data, recipe.synthesize, out=root, data_dir=data_dir, fresh=fresh)
    return synthesize(recipe.data, recipe.synthesize, out=root, data_dir=data_dir, fresh=fresh)


def _sft(recipe: Recipe, variant: str, source: str | Path, root: Path, *, processes: int, fresh: bool) -> Manifest:
    stage = recipe.folder(variant)
    if processes > 1 and (fresh or not (root / stage / "manifest.json").exists()):
        command = ["sft", str(source), "--out", str(root), "--variant", variant]
        return _launched(command, root / stage, processes=processes, fresh=fresh)
    return _done(run_sft(recipe.variant(variant), recipe.model, out=root, stage=stage, fresh=fresh))


def _dpo(recipe: Recipe, source: str | Path, root: Path, *, processes: int, fresh: bool) -> Manifest:
    if processes > 1 and (fresh or not (root / "dpo" / "manifest.json").exists()):
        return _launched(["dpo", str(source), "--out", str(root)], root / "dpo", processes=processes, fresh=fresh)
    return _done(run_dpo(recipe.dpo, recipe.model, out=root, fresh=fresh))


def _launched(command: list[str], folder: Path, *, processes: int, fresh: bool) -> Manifest:
    launch([*command, *(["--fresh"] if fresh else [])], processes)
    return _read(folder / "manifest.json")


def _done(manifest: Manifest | None) -> Manifest:
    if manifest is None:
        raise ConfigError("reproduce is to be started once; use --processes N for the training stages")
    return manifest


def sample_stage(recipe: Recipe, out: str | Path, *, fresh: bool = False) -> Manifest:
    """Sample with the recipe's models, each on the recipe's engine."""
    root = Path(out)
    folders = {name: _model_folder(recipe, root, name) for name in recipe.sample.models}

    def open_model(name: str) -> tuple[Engine, Wire]:
        wire, model = read_meta(folders[name]).get("wire", recipe.model.wire), str(folders[name])
        if recipe.sample.engine == "onnx" and not (folders[name] / "genai_config.json").exists():
            place = hashlib.sha256(str(folders[name].resolve()).encode()).hexdigest()[:8]  # all end in `checkpoint`
            target = root / "sample" / "models" / f"{Path(name).name}-{place}"
            if not target.exists():
                onnx.export(folders[name], target, precision="fp32", check=False)  # the weights that were trained
            model = str(target)
        return load_engine(recipe.sample.engine, model=model, seed=recipe.sample.seed), wire

    return run_sample(
        recipe.sample,
        out=root,
        open_model=open_model,
        trained_on=_trained_on(recipe, root),
        checkpoints=[folder for folder in folders.values() if folder.exists()],
        fresh=fresh,
    )


def _model_folder(recipe: Recipe, root: Path, name: str) -> Path:
    """The folder of a model that samples; a hub id is left unchanged."""
    if name not in ("sft", *recipe.variants):
        if onnx.is_quantised(Path(name)):
            raise ConfigError(
                f"sample.models: {name} is a quantised export, whose answers are not those of the trained weights; "
                "name the checkpoint"
            )
        return Path(name)
    folder = root / recipe.folder(name) / "checkpoint"
    if not folder.exists():
        raise DataError(f"{name} is not trained yet; run `guardreasoner sft --variant {name}`", file=str(folder))
    return folder


def _trained_on(recipe: Recipe, root: Path) -> Mapping[str, frozenset[str]]:
    """For each variant the sources it was trained on, of those that the traces have."""
    traces = root / "synthesize" / "traces.jsonl"
    if not recipe.sample.only_trained_on or not traces.exists():
        return {}
    sources = {row["example"]["exchange"].get("source", "") for _, row in read_jsonl(traces)}
    return {
        name: frozenset(s for s in sources if s not in config.leave_out and (not config.only or s in config.only))
        for name, config in recipe.variants.items()
    }


def final_checkpoint(recipe: Recipe, root: Path) -> Path:
    """The checkpoint that the recipe ends with."""
    return root / ("dpo" if "dpo" in recipe.stages else "sft") / "checkpoint"


def export_stage(recipe: Recipe, root: Path, *, fresh: bool = False) -> Manifest:
    """Export what the recipe trained to `export/model`.

    Raises:
        DataError: it is not trained yet.
    """
    if "encoder" in recipe.stages:
        from guardreasoner.export.encoder import run as export_encoder

        return export_encoder(root, fresh=fresh)
    onnx.run(final_checkpoint(recipe, root), root, recipe.export, fresh=fresh)
    return _read(root / "export" / "manifest.json")


def _evaluate(
    recipe: Recipe, root: Path, data_dir: Path | None, fresh: bool, *, variant: str | None = None
) -> Manifest:
    """A variant's checkpoint is run as it is, and in `instant` where it learned labels alone: it has no reasoning."""
    config = recipe.evaluate
    exported = (config.engine == "onnx" or "encoder" in recipe.stages) and variant is None
    folder = root / "export" / "model" if exported else final_checkpoint(recipe, root)
    engine: str | None = config.engine
    mode: Any = config.mode
    out = root / "evaluate"
    if variant is not None:
        folder, out = root / recipe.folder(variant) / "checkpoint", root / f"evaluate-{variant}"
        engine = "hf" if engine == "onnx" else engine
        mode = mode if recipe.variant(variant).reasoning else "instant"
    path = out / "manifest.json"
    if not folder.exists():
        raise DataError("there is no model yet; run the stages before evaluate first", file=str(folder))
    examples = benchmarks_of(config, data_dir)
    asked = {"mode": mode, "engine": engine, "recipe": recipe.name, "variant": variant or ""}
    asked |= {"model": sha256(folder), "rows": _digest(examples)}
    if path.exists() and not fresh and _covers(_read(path)["config"], {**asked, "limit": config.limit}, examples):
        return _read(path)
    guard = load_guard(str(folder), mode=mode, engine=None if "encoder" in recipe.stages else engine)
    if recipe.sft.first_look and mode in ("short", "full"):
        stacks = folder / "stacks.json"
        guard = behind(recipe.sft.first_look, guard, mode=mode, stacks=stacks if stacks.exists() else None)
    try:
        evaluate(guard, examples, out, config=asked, limit=config.limit, fresh=fresh)
    finally:
        guard.close()
    return _read(path)


def _covers(done: Mapping[str, Any], asked: Mapping[str, Any], examples: Mapping[str, Any]) -> bool:
    """Whether a finished evaluation is the one that is asked for; one of another kind is refused by `evaluate`."""
    return all(done.get(k) == v for k, v in asked.items()) and done.get("benchmarks") == sorted(examples)


def _digest(examples: Mapping[str, list[Example]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(examples):
        for example in examples[name]:
            digest.update(dumps(example).encode())
    return digest.hexdigest()


def benchmarks_of(config: EvaluateConfig, data_dir: Path | None) -> dict[str, list[Example]]:
    """The examples that a recipe is evaluated on, by benchmark."""
    names = config.benchmarks or _present(data_dir)
    wanted = {title(shipped(name)): load_benchmark(shipped(name), data_dir) for name in names}
    if not wanted:
        raise ConfigError("no benchmark is there to evaluate on; give --data DIR or set GUARDREASONER_DATA")
    return wanted


def _present(data_dir: Path | None) -> list[str]:
    if data_folder(data_dir) is None:
        return list(BENCHMARKS)  # from the hub
    return [name for name in BENCHMARKS if local_file(name, data_dir)]


def _read(path: Path) -> Manifest:
    content: Manifest = json.loads(path.read_text(encoding="utf-8"))
    return content
