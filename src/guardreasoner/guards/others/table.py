"""Other people's guards: the rows of `table.yaml`, with the published texts of `prompts.yaml` in their places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardreasoner.guards.base import GuardRow
from guardreasoner.guards.others.prompts import FRAMES, POLICIES, POLICY_FRAMES
from guardreasoner.types import TASKS, Task
from guardreasoner.yaml_files import packaged

PUBLISHED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "frame": FRAMES,
    "policies": {**POLICY_FRAMES, "ours": POLICIES},
}
"""Option -> name -> the texts that `published: NAME` stands for."""


def _row(name: str, values: Mapping[str, Any]) -> GuardRow:
    options = dict(values.get("options", {}))
    for key, texts in PUBLISHED.items():
        own = options.get(key, {})
        if "published" in own:
            options[key] = {**texts[own["published"]], **{k: v for k, v in own.items() if k != "published"}}
    tasks = tuple(map(Task, values.get("tasks", TASKS)))
    return GuardRow(**{"name": name, **values, "tasks": tasks, "options": options})


_FILE: Mapping[str, Mapping[str, Any]] = packaged("guards/others/table.yaml")
PAPER, NOW = (tuple(_row(name, values) for name, values in _FILE[part].items()) for part in ("paper", "now"))
BASELINES: tuple[GuardRow, ...] = (*PAPER, *NOW)
