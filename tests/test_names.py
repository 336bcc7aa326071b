"""A class name means one thing in the whole package."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent / "src" / "guardreasoner"
SHARED = {
    "Options": "every answer format has one; `formats.base` finds it by this name",
}
"""Names that several files define on purpose, and why."""


def test_no_class_name_is_defined_twice():
    defined = defaultdict(list)
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                defined[node.name].append(str(path.relative_to(ROOT)))
    assert len(defined) > 200
    twice = {name: files for name, files in defined.items() if len(files) > 1}
    wrong = [f"{name}: {', '.join(files)}" for name, files in twice.items() if name not in SHARED]
    assert not wrong, "\n".join(wrong)
    assert SHARED.keys() <= twice.keys()
