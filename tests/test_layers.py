"""Imports go downward only, and nothing heavy is imported by importing the package."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent / "src" / "guardreasoner"
LAYERS = (
    {"types", "errors", "plans"},
    {"formats", "records", "metrics"},
    {"engines", "data"},
    {"guards"},
    {"train", "evaluate"},
    {"reproduce", "ablation", "batch", "serve", "integrations"},
    {"cli"},
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
STAGES = {"train": {"synthesize", "sft", "sample", "mine", "dpo", "export"}}


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("guardreasoner"):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("guardreasoner")]
    return found


def test_imports_go_downward_only():
    wrong, seen = [], 0
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] in ("__init__", "__main__"):
            continue
        seen += 1
        for name in imports(path):
            target = name.split(".")[1:]
            if not target or target[0] == "__version__":
                continue
            if target[0] != parts[0] and LEVEL[target[0]] > LEVEL[parts[0]]:
                wrong.append(f"{'.'.join(parts)} imports {name}")
            stages = STAGES.get(parts[0], set())
            if len(target) > 1 and target[0] == parts[0] and parts[-1] in stages and target[1] in stages - {parts[-1]}:
                wrong.append(f"stage {'.'.join(parts)} imports stage {name}")
    assert seen > 20
    assert not wrong, "\n".join(wrong)


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, guardreasoner; "
        "print([m for m in ('torch', 'transformers', 'onnxruntime_genai', 'openai', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
