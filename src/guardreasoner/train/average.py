"""The mean of the weights of several checkpoints: runs from one start that end in one basin judge better together.

    python -m guardreasoner.train.average OUT CHECKPOINT CHECKPOINT...

Weight averaging of fine-tuned models ("model soups", Wortsman et al. 2022, arXiv 2203.05482). The checkpoints must hold
the same tensors and the same tokenizer, as runs from one base do; everything but the weights is the first one's. As a
stage it averages a run's own `sft/checkpoint` with those of other recipes, each trained in a folder beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guardreasoner.data.mix import USES
from guardreasoner.errors import ConfigError, DataError, GuardReasonerError, need
from guardreasoner.records import sha256
from guardreasoner.run_folder import Counts, RunFolder
from guardreasoner.train.models import read_meta, write_meta

WEIGHTS = "model.safetensors"


def average(checkpoints: Sequence[str | Path], out: str | Path) -> Path:
    """Write the mean of some checkpoints to `out`, which must not exist; it appears whole or not at all.

    Raises:
        ConfigError: fewer than two folders, folders that do not fit together, or `out` is there.
    """
    folders, target = [Path(c) for c in checkpoints], Path(out)
    if len(folders) < 2:
        raise ConfigError("give at least two checkpoints to average")
    if target.exists():
        raise ConfigError(f"{target} is already there; give another folder")
    tensors = [_tensors(folder) for folder in folders]
    for folder, one in zip(folders, tensors, strict=True):
        if {k: v.shape for k, v in one.items()} != {k: v.shape for k, v in tensors[0].items()}:
            raise ConfigError(f"{folder} and {folders[0]} do not hold the same tensors")
        if sha256(folder / "tokenizer.json") != sha256(folders[0] / "tokenizer.json"):
            raise ConfigError(f"{folder} and {folders[0]} have different tokenizers: their weights do not correspond")
    mean = {name: (sum(one[name].double() for one in tensors) / len(tensors)).float() for name in tensors[0]}
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for path in folders[0].iterdir():
            if path.is_file() and path.name != WEIGHTS:
                shutil.copyfile(path, work / path.name)
        need("safetensors.torch", "train").save_file(mean, work / WEIGHTS, metadata={"format": "pt"})
        write_meta(work, {**read_meta(folders[0]), "licences": _licences(folders)})
        work.chmod(0o755)
        os.replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def run_average(out: str | Path, members: Sequence[str], *, fresh: bool = False) -> dict[str, Any]:
    """The stage: `DIR/average/checkpoint` from `DIR/sft/checkpoint` and `DIR/average-MEMBER/sft/checkpoint`.

    Args:
        out: the run's folder.
        members: names of the other recipes.
        fresh: do it again.

    Raises:
        DataError: a member is not trained yet.
    """
    root = Path(out)
    checkpoints = [root / "sft" / "checkpoint", *(member_folder(root, m) / "sft" / "checkpoint" for m in members)]
    for checkpoint in checkpoints:
        if not (checkpoint / WEIGHTS).exists():
            raise DataError("not trained yet; run the recipe's stages before average", file=str(checkpoint))
    inputs = [checkpoint / WEIGHTS for checkpoint in checkpoints]
    with RunFolder(root, "average", config={"members": list(members)}, inputs=inputs, fresh=fresh) as run:
        target = run.path / "checkpoint"
        for torn in run.path.glob(f".{target.name}.*"):  # a kill in the middle
            shutil.rmtree(torn)
        if run.manifest is not None and target.exists():
            return run.manifest
        shutil.rmtree(target, ignore_errors=True)
        average(checkpoints, target)
        return run.finish(Counts(in_=len(checkpoints), out=len(checkpoints)))


def member_folder(root: Path, member: str) -> Path:
    """Where a run trains another recipe for its mean."""
    return root / f"average-{member}"


def _tensors(folder: Path) -> Mapping[str, Any]:
    if not (folder / WEIGHTS).is_file() or not (folder / "tokenizer.json").is_file():
        raise ConfigError(f"{folder} holds no {WEIGHTS} with a tokenizer.json; give checkpoints in one file")
    tensors: Mapping[str, Any] = need("safetensors.torch", "train").load_file(folder / WEIGHTS)
    return tensors


def _licences(folders: Sequence[Path]) -> dict[str, Any]:
    """The mean has seen the rows of all: the union of the licence classes (none stated = unstated), all counts."""
    all_ = [read_meta(folder).get("licences") or {} for folder in folders]
    seen = {use for one in all_ for use in one.get("use") or ["unstated"]}
    return {"use": [u for u in USES if u in seen], "licences": [one.get("licences") for one in all_]}


def main(words: Sequence[str]) -> int:
    """Entry point."""
    if len(words) < 3:
        print("usage: python -m guardreasoner.train.average OUT CHECKPOINT CHECKPOINT...", file=sys.stderr)
        return 2
    try:
        average(words[1:], words[0])
    except GuardReasonerError as error:
        print(f"average: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"checkpoint": words[0], "mean_of": len(words) - 1}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
