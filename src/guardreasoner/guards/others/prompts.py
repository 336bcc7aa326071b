"""The contents of `prompts.yaml`: where other guards' prompts are published, and our own policies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardreasoner.errors import ConfigError
from guardreasoner.guards.others.fetch import Frame, Place
from guardreasoner.yaml_files import packaged, read_text, read_yaml

_FILE: Mapping[str, Any] = packaged("guards/others/prompts.yaml")


def _place(text: str) -> Place:
    kind, where, file = text.split(" ")
    name, version = where.rsplit("@", 1)
    return Place(kind, name, version, file)  # type: ignore[arg-type]


def _frame(row: Mapping[str, Any]) -> Frame:
    pieces = tuple(piece if isinstance(piece, str) else (piece[0], piece[1]) for piece in row["pieces"])
    return Frame(row["sha256"], pieces, tuple(map(_place, row["places"])), row.get("holes", {}))


FRAMES: Mapping[str, Mapping[str, Frame]] = {
    name: {side: _frame(row) for side, row in sides.items()} for name, sides in _FILE["frames"].items()
}
"""Name -> side (`prompt`, `response`, `system`) -> the template."""
POLICY_FRAMES: Mapping[str, Mapping[str, Mapping[str, Frame]]] = {
    name: {side: {policy: _frame(row) for policy, row in rows.items()} for side, rows in sides.items()}
    for name, sides in _FILE["policy_frames"].items()
}
"""Name -> side -> policy -> its text."""
TEMPLATES: Mapping[str, tuple[str, str]] = {name: (pair[0], pair[1]) for name, pair in _FILE["templates"].items()}
"""Guard -> SHA-256 of what its own chat template makes of a request, and of a request and its reply."""
POLICIES: Mapping[str, Mapping[str, str]] = _FILE["policies"]
"""Side -> policy -> text, in this project's own words."""


def read_policy(path: str | Path) -> dict[str, str]:
    """A user's policies from a file: plain text is one policy, YAML with a mapping is one per key.

    Returns:
        Name -> text; the name of a plain text is the file's.
    """
    file = Path(path)
    found = read_yaml(file) if file.suffix in (".yaml", ".yml", ".json") else {file.stem: read_text(file).strip()}
    if not isinstance(found, dict) or not found or not all(isinstance(v, str) and v.strip() for v in found.values()):
        raise ConfigError(f"{file}: a policy is a text, or YAML with one text per name")
    return {str(name): text for name, text in found.items()}
