"""From a finished run to a folder that can be given away: the exported model, its licence, and what it is made of.

    python bench/bundle.py RUN FOLDER

`FOLDER/manifest.json` names every source with its rows and every licence with its rows; the licence of the weights
follows from them, and a test of the bundled model fails when the two disagree.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guardreasoner.errors import DataError, GuardReasonerError
from guardreasoner.records import now, sha256, write_atomic

PERMISSIVE, RESEARCH = "Apache-2.0", "CC-BY-NC-4.0"


def weights_licence(use: Sequence[str]) -> str:
    """The licence that weights may carry, given the licence classes of the rows they were trained on."""
    return PERMISSIVE if set(use) <= {"permissive"} else RESEARCH


def bundle(run: str | Path, folder: str | Path) -> dict[str, Any]:
    """Copy `RUN/export/model` to `folder` and write its manifest; LICENSE and README.md there are left alone.

    Raises:
        DataError: a stage of the run is not finished.
    """
    source, target = Path(run), Path(folder)
    exported, calibrated = _manifest(source, "export"), _manifest(source, "calibrate")
    own = _trained(source)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted((source / "export" / "model").iterdir()):
        shutil.copyfile(path, target / path.name)
    manifest = {
        "licence": weights_licence(own["use"]),
        **own,
        "precision": exported["config"].get("precision", "int8"),
        "fits": calibrated["fits"],
        "files": {
            p.name: sha256(p)
            for p in sorted(target.iterdir())
            if p.suffix in (".onnx", ".data", ".json") and p.name != "manifest.json"
        },
        "made": now(),
    }
    write_atomic(target / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return manifest


def _trained(run: Path) -> dict[str, Any]:
    """What one run was trained on, and how."""
    if (run / "encoder").is_dir():
        made = _manifest(run, "encoder")
        data, about = made["config"]["data"], made["about"]
        how = {k: made[k] for k in ("config", "steps", "tokens", "train_seconds", "versions")}
        return {
            "use": data["use"],
            "sources": about["sources"],
            "licences": about["licences"],
            "validated_on": data["leave_out"],
            "base": "all-MiniLM-L6-v2",
            "encoder": how,
        }
    rows, sft = _manifest(run, "synthesize"), _manifest(run, "sft")
    data = rows["config"]["data"]
    return {
        "use": data["use"],
        "sources": rows["counts"]["sources"],
        "licences": rows["counts"]["licences"],
        "validated_on": data["leave_out"],
        "base": sft["config"]["model"]["base"],
        "sft": {k: sft[k] for k in ("config", "steps", "rows", "tokens", "seconds", "versions")},
    }


def _manifest(run: Path, stage: str) -> Mapping[str, Any]:
    path = run / stage / "manifest.json"
    if not path.exists():
        raise DataError(f"stage {stage} is not finished; run it first", file=str(path))
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def main(words: Sequence[str]) -> int:
    """Entry point."""
    if len(words) != 2:
        print("usage: python bench/bundle.py RUN FOLDER", file=sys.stderr)
        return 2
    try:
        made = bundle(*words)
    except GuardReasonerError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    print(f"{words[1]}: {made['licence']}, {sum(made['sources'].values())} rows of {len(made['sources'])} sources")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
