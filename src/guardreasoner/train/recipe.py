"""Recipes: one YAML file says what differs from the paper's defaults, for every stage.

    name: my-guard
    model: {base: meta-llama/Llama-3.2-1B, wire: chat, chat_template: llama3}
    data: {folder: train, use: [permissive]}
    synthesize: {teacher: openai, max_cost: 20}
    sft: {epochs: 1}
    variants: {no-beaver: {leave_out: [BeaverTailsTrain]}}     # further R-SFT runs: diversity models, baselines
    sample: {models: [sft, no-beaver]}

`extends: NAME` starts from a bundled recipe and says only what differs from it, key by key at every depth. Each
section is one frozen dataclass; its docstrings say what every key means and where its default comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from guardreasoner.data.mix import DataConfig
from guardreasoner.errors import ConfigError, UnknownName, printable
from guardreasoner.evaluate.calibrate import CalibrateConfig
from guardreasoner.export.onnx import ExportConfig
from guardreasoner.ranges import build
from guardreasoner.teach.config import SynthesizeConfig
from guardreasoner.train.encoder_settings import EncoderConfig
from guardreasoner.train.mine import MineConfig
from guardreasoner.train.sample import SampleConfig
from guardreasoner.train.settings import TEMPLATES, DpoConfig, ModelConfig, SftConfig
from guardreasoner.yaml_files import in_package, packaged, parse_yaml, read_text

STAGES = ("encoder", "decoder", "synthesize", "sft", "sample", "mine", "dpo", "export", "calibrate", "micro",
          "evaluate")  # fmt: skip
"""What `reproduce` can run, in this order."""
PAPER: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 5e-5, "epochs": 3.0, "batch": 384, "max_tokens": 2048},
    "sample": {"k": 4, "temperature": 0.7},
    "mine": {"gamma": 0.2, "rule": "official"},
    "dpo": {"learning_rate": 5e-6, "epochs": 2.0, "batch": 256, "beta": 0.01, "sft_weight": 2.0},
}
"""The values of the paper's table and scripts (temperature: the code; the paper says 1.0)."""


BASELINE_MIX = "baseline-mix"
"""The variant that learns the labels alone: what reasoning is measured against."""


@dataclass(frozen=True)
class EvaluateConfig:
    """How the finished guard is scored."""

    benchmarks: tuple[str, ...] = ()
    """Names or files, `everyday` among them; empty = all that the data folder holds."""
    mode: str = "full"
    """Reasoning budget (paper: full)."""
    engine: Literal["onnx", "hf", "vllm"] = "hf"
    """What runs the guard; onnx reads the export, the others the checkpoint."""
    limit: int | None = None
    """Rows per benchmark, stratified by gold; None = all."""


@dataclass(frozen=True)
class Recipe:
    """Everything that one run does."""

    name: str
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    traces: str | None = None
    """Published traces to train on instead of synthesizing: a hub id (yueliu1999/GuardReasonerTrain) or a file."""
    seeds: tuple[str, ...] = ()
    """Seed training sets from the hub to synthesize for, instead of `data`; paper: WildGuardTrain, AegisTrain,
    BeaverTailsTrain, ToxicChatTrain."""
    synthesize: SynthesizeConfig = field(default_factory=SynthesizeConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    variants: Mapping[str, SftConfig] = field(default_factory=dict)
    """Further R-SFT runs by name: the sft section with these keys changed."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    mine: MineConfig = field(default_factory=MineConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """How a guard that scores text is trained, where `encoder` is a stage."""
    decoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The same of micro's second network, where `decoder` is a stage: the encoder section with these keys changed."""
    export: ExportConfig = field(default_factory=ExportConfig)
    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    stages: tuple[str, ...] = ("synthesize", "sft", "sample", "mine", "dpo", "export", "evaluate")
    """What `reproduce` runs; a recipe without HS-DPO leaves out sample, mine and dpo."""
    note: str = ""
    """What a reader of the recipe must know."""

    def __post_init__(self) -> None:
        for name in self.stages:
            if name not in STAGES:
                raise UnknownName("stage", name, STAGES)
        if self.model.chat_template is not None and self.model.chat_template not in TEMPLATES:
            raise UnknownName("chat template", self.model.chat_template, TEMPLATES)
        if self.traces and self.seeds:
            raise ConfigError("a recipe has traces or seeds, not both: published traces need no teacher")

    def variant(self, name: str) -> SftConfig:
        """The R-SFT configuration of a variant, or of `sft` itself.

        Every recipe has the variant `baseline-mix`, the paper's label-only model on the same rows (Table 3), whether
        or not it is written down.
        """
        if name == "sft":
            return self.sft
        if name == BASELINE_MIX and name not in self.variants:
            return replace(self.sft, reasoning=0.0, labels_only=1.0)
        if name not in self.variants:
            raise UnknownName(f"variant in recipe {self.name!r}", name, ("sft", *self.variants, BASELINE_MIX))
        return self.variants[name]

    def folder(self, name: str) -> str:
        """The folder of `sft` or of a variant inside a run."""
        return "sft" if name == "sft" else f"sft-{name}"


def values(recipe: Recipe) -> list[str]:
    """The values that the paper's table has, a line for each section; where they differ, the paper's beside them."""
    lines = []
    for section, paper in PAPER.items():
        if section in recipe.stages:
            own = {key: getattr(getattr(recipe, section), key) for key in paper}
            parts = [f"{k} {own[k]:g}" if isinstance(own[k], float) else f"{k} {own[k]}" for k in paper]
            parts = [p if own[k] == paper[k] else f"{p} (paper {paper[k]})" for p, k in zip(parts, paper, strict=True)]
            lines.append(f"{section}: {', '.join(parts)}")
    return lines


def names() -> tuple[str, ...]:
    """The recipes that come with the package."""
    return tuple(sorted(p.stem for p in in_package("recipes").glob("*.yaml")))


def load_recipe(name: str | Path) -> Recipe:
    """A recipe by its bundled name or from a YAML file."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        text = read_text(path)
    elif str(name) in names():
        text = in_package(f"recipes/{name}.yaml").read_text(encoding="utf-8")
    else:
        raise UnknownName("recipe", str(name), names())
    return parse_recipe(text, name=path.stem)


def parse_recipe(text: str, *, name: str) -> Recipe:
    """A recipe from YAML text."""
    content = parse_yaml(text, f"recipe {name}") or {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"recipe {name} must be a mapping of sections")
    content = _extended(dict(content))
    variants = content.pop("variants", None) or {}
    if not isinstance(variants, Mapping):
        raise ConfigError("variants must map names to changed keys of the sft section")
    sft = content.get("sft") or {}
    for section in ("sft", "encoder"):
        if not isinstance(content.get(section) or {}, Mapping):
            raise ConfigError(f"{section} must be a mapping of keys")
    built = {}
    for key, changes in variants.items():
        if key in STAGES or not str(key).replace("-", "").isalnum():
            raise ConfigError(f"variants.{printable(str(key))}: a name of letters, digits and hyphens, not a stage's")
        if not isinstance(changes, Mapping):
            raise ConfigError(f"variants.{key} must be a mapping")
        built[str(key)] = build(SftConfig, {**sft, **changes}, f"variants.{key}")
    if isinstance(changes := content.get("decoder") or {}, Mapping):
        content["decoder"] = _merged(content.get("encoder") or {}, changes)
    recipe = build(Recipe, {"name": name, **content}, "", extra={"variants": built})
    for model in recipe.sample.models:
        looks_elsewhere = "/" in model or Path(model).exists()
        if not looks_elsewhere:
            recipe.variant(model)
    return recipe


def _extended(content: dict[str, Any]) -> dict[str, Any]:
    """The content on top of the recipe that it extends; an empty mapping empties the one underneath."""
    base = content.pop("extends", None)
    if base is None:
        return content
    if base not in names():
        raise UnknownName("recipe to extend", str(base), names())
    return _merged(_extended(packaged(f"recipes/{base}.yaml")), content)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {k for k, v in over.items() if v and isinstance(v, Mapping) and isinstance(under.get(k), Mapping)}
    return {**under, **over, **{key: _merged(under[key], over[key]) for key in both}}
