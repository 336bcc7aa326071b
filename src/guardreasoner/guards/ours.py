"""Our own guards, a row each: the bundled one, the paper's published weights, and guards of guards."""

from __future__ import annotations

from guardreasoner.guards.base import GuardRow
from guardreasoner.yaml_files import in_package

MODELS = in_package("models")
NANO_FOLDER, MICRO_FOLDER, MINI_FOLDER = MODELS / "nano", MODELS / "micro", MODELS / "mini"
BUNDLED = "guardreasoner"
"""What judges where no guard is named."""
BUNDLED_FOLDERS = {BUNDLED: NANO_FOLDER, "nano": NANO_FOLDER, "micro": MICRO_FOLDER, "mini": MINI_FOLDER}
"""Whose answers are those of which weights: the pair's are nano's."""
LICENCE = "Apache-2.0"
"""Of the bundled weights; a test compares it with their manifest."""

OURS: tuple[GuardRow, ...] = (
    GuardRow(BUNDLED, "cascade", "", "", licence=LICENCE,
             options={"first": "nano", "larger": "micro", "bands": MICRO_FOLDER / "bands.json", "second": "mini",
                      "stacks": MINI_FOLDER / "stacks.json"},
             note="bundled: nano judges, micro what nano is unsure of, mini quotes what weighs most; no network"),
    GuardRow("nano", "encoder", "encoder", str(NANO_FOLDER), licence=LICENCE,
             note="bundled; judges in milliseconds and does not reason"),
    GuardRow("micro", "encoder", "encoder", str(MICRO_FOLDER), licence=LICENCE,
             note="bundled; nano and mini's lower layers, which judge better together; a tenth of a second"),
    GuardRow("mini", "guardreasoner", "onnx", str(MINI_FOLDER), licence=LICENCE,
             note="bundled; quotes and concludes behind nano, whose verdict it reads; no guard alone"),
    GuardRow("guardreasoner-1b", "guardreasoner", "hf", "yueliu1999/GuardReasoner-1B", options={"wire": "raw"}),
    GuardRow("guardreasoner-3b", "guardreasoner", "hf", "yueliu1999/GuardReasoner-3B", options={"wire": "raw"}),
    GuardRow("guardreasoner-8b", "guardreasoner", "hf", "yueliu1999/GuardReasoner-8B",
             "dc7373a22dce9c7bdeb2fe839abcbfe991b20737", options={"wire": "raw"}),
    GuardRow("constant", "constant", "", "", note="always positive: the floor that every F1 is read against"),
    GuardRow("replay", "replay", "", "", note="answers from stored verdicts; give --model FILE or FOLDER"),
    GuardRow("cascade", "cascade", "", "", note="a guard with scores, then another where it is unsure"),
)  # fmt: skip
