"""Imports go downward only, and nothing heavy is imported by importing the package."""

import ast
import subprocess
import sys
from collections.abc import Container
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent / "src" / "guardreasoner"
LAYERS = (
    {"types", "errors", "generation", "ranges"},
    {"formats", "records", "run_folder", "metrics", "yaml_files"},
    {"engines", "data"},
    {"guards"},
    {"teach", "train", "export", "evaluate", "report", "review"},
    {"reproduce", "batch", "serve", "integrations", "review.app"},
    {"cli"},
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
ACROSS = {"train.recipe"}
"""A recipe holds the configuration of every stage."""
STAGES = {"teach.synthesize", "train.sft", "train.sample", "train.mine", "train.dpo", "export.onnx"}


def modules() -> dict[str, Path]:
    """Every module by its name below the package."""
    return {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.rglob("*.py")}


def imports(path: Path, known: Container[str]) -> set[str]:
    """The modules of the package that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("guardreasoner."):
            base = node.module.removeprefix("guardreasoner.")
            found |= {name if (name := f"{base}.{a.name}") in known else base for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("guardreasoner.") for a in node.names if a.name.startswith("guardreasoner.")}
    return {name for name in found if name in known}


def graph() -> dict[str, set[str]]:
    known = modules()
    found = {name: imports(path, known) - {name} for name, path in known.items()}
    assert len(found) > 150
    return found


def level(name: str) -> int | None:
    return LEVEL.get(name, LEVEL.get(name.split(".")[0]))


def test_imports_go_downward_only():
    wrong = [
        f"{name} imports {target}"
        for name, targets in graph().items()
        for target in targets
        if (mine := level(name)) is not None and (theirs := level(target)) is not None and theirs > mine
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_stages_meet_in_files_and_never_import_one_another():
    known = graph()
    assert known.keys() >= STAGES
    wrong = [f"{stage} imports {target}" for stage in STAGES for target in known[stage] & STAGES]
    assert not wrong, "\n".join(sorted(wrong))


def test_no_files_import_one_another_in_a_circle():
    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        raise AssertionError("a circle of imports: " + " -> ".join(error.args[1])) from None


def test_no_folders_import_one_another_in_a_circle():
    folders: dict[str, set[str]] = {}
    for name, targets in graph().items():
        if name not in ACROSS:
            room = name.split(".")[0]
            folders.setdefault(room, set()).update(t.split(".")[0] for t in targets if t.split(".")[0] != room)
    try:
        list(TopologicalSorter(folders).static_order())
    except CycleError as error:
        raise AssertionError("a circle of folders: " + " -> ".join(error.args[1])) from None


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, guardreasoner; "
        "print([m for m in ('torch', 'transformers', 'onnxruntime_genai', 'openai', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
