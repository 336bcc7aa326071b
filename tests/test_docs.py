"""What the documents promise holds: examples run, commands exist with the options shown, links lead somewhere."""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import guardreasoner
from guardreasoner.cli.main import COMMANDS, main, parser_for

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
EXAMPLES = ("judge_one.py", "judge_in_parallel.py")
BLOCK = re.compile(r"(<!-- test: nano -->\n+)?```(\w+)\n(.*?)```", re.S)


def blocks(language):
    for page in PAGES:
        for marked, name, body in BLOCK.findall(page.read_text()):
            if name == language:
                yield page.relative_to(ROOT), bool(marked), body


def commands():
    for page, _, body in blocks("bash"):
        for line in body.replace("\\\n", " ").splitlines():
            code = line.split(" # ")[0].split(" || ")[0].split(" | ")[0].strip()
            code = re.split(r"\s[<>]\s?", code)[0]
            if code.startswith("guardreasoner "):
                yield str(page), code


def test_every_command_in_the_documents_parses():
    seen, wrong = 0, []
    for page, code in commands():
        words = shlex.split(code)[1:]
        seen += 1
        try:
            parser_for(words[0]).parse_args(words)
        except SystemExit as error:
            if error.code not in (0, None):
                wrong.append(f"{page}: {code}")
    assert seen >= 8
    assert not wrong, "\n".join(wrong)


def generator(name):
    spec = importlib.util.spec_from_file_location(f"write_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command_reference():
    return generator("commands")


def test_the_python_reference_says_what_the_docstrings_say():
    reference = generator("api")
    assert reference.PAGE.read_text() == reference.page(), "docs/api.md is stale: run `make docs`"
    assert [reference.page().count(f"\n## {name}\n") for name in guardreasoner.__all__] == [1] * 15
    for name in ("check", "check_messages", "acheck", "stream", "close"):
        assert f"### Guard.{name}\n" in reference.page()
    assert not re.findall(r"^\| `(\w+): .*` \|  \|$", reference.page(), re.M), "a public field without a docstring"


def test_the_command_reference_says_what_the_parsers_say():
    reference = command_reference()
    assert reference.PAGE.read_text() == reference.page(), "docs/commands.md is stale: run `make docs`"
    assert reference.page().count("\n## ") == len(COMMANDS) + 1


def test_every_option_of_every_command_is_explained():
    parsers = {name: command_reference().command_parser(name) for name in COMMANDS}
    silent = [f"{name}: {action.dest}" for name, p in parsers.items() for action in p._actions if not action.help]
    assert not silent


def test_the_readme_shows_the_real_tree():
    """Every entry of the package is named once in README's tree, and every name in the tree is there."""
    tree = re.search(r"```text\nsrc/guardreasoner/\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    named = [
        name.rstrip("/")
        for line in tree.splitlines()
        if re.match(r"  \S", line)
        for name in re.split(r"\s{2,}", line.strip())[0].split()
    ]
    package = ROOT / "src" / "guardreasoner"
    there = {p.name for p in package.iterdir() if not p.name.startswith(("_", "."))} - {"py.typed"}
    assert len(named) == len(set(named))
    assert {name for name in named if "/" not in name} == there
    assert all((package / name).exists() for name in named)


def test_the_picture_of_the_readme_is_what_is_printed(capsys, monkeypatch):
    """But for digits, which other processors round otherwise, the line that holds the time, and the words of reasoning,
    which such a rounding can change."""
    shown = re.search(r"```console\n\$ guardreasoner check (.*?)\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    words = shlex.split(shown[1])
    decided = re.compile(r"╭─ |│  (request|reply|attack|user|AI) " if "full" in words else "")
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["check", *words]) == 0
    printed, picture = ([re.sub(r"[█·\d]", "", line) for line in text.splitlines()[:-1] if decided.match(line)]
                        for text in (capsys.readouterr().out, shown[2]))  # fmt: skip
    assert len(picture) >= 3
    assert printed == picture


def test_the_walks_of_the_design_page_pass_through_real_files():
    text = (ROOT / "docs" / "design.md").read_text()
    walks = text[text.index("## Four walks") : text.index("## Layers")]
    files = re.findall(r"`(\w+(?:/\w+)+\.py)`", walks)
    assert len(files) >= 35
    assert not [f for f in files if not (ROOT / "src" / "guardreasoner" / f).exists()]
    stops = [len(re.findall(r"^\d\. ", walk, re.M)) for walk in walks.split("\n**")[1:]]
    assert len(stops) == 4
    assert max(stops) <= 8


def test_what_pages_examples_and_benches_import_exists():
    """Read from the sources, so that no extra needs to be installed."""
    sources = {str(page): body for page, _, body in blocks("python")}
    sources |= {
        str(p.relative_to(ROOT)): p.read_text() for d in ("bench", "examples") for p in (ROOT / d).rglob("*.py")
    }
    found, missing = 0, []
    for origin, body in sources.items():
        nodes, used = list(ast.walk(ast.parse(body))), []
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "guardreasoner":
                used += [(node.module, a.name, a.asname or a.name) for a in node.names]
        modules = {alias: f"{module}.{name}" for module, name, alias in used if is_module(f"{module}.{name}")}
        asked = [(module, name) for module, name, _ in used] + [
            (modules[node.value.id], node.attr)
            for node in nodes
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
        ]
        found += len(asked)
        missing += [f"{origin}: {module}.{name}" for module, name in asked if not exists(module, name)]
    assert found >= 60
    assert not missing, "\n".join(missing)


def is_module(name):
    return (ROOT / "src" / Path(*name.split("."))).with_suffix(".py").exists()


def exists(module, name):
    """Whether a module of the package has something of this name."""
    path = ROOT / "src" / Path(*module.split("."))
    if (path / name).is_dir() or (path / f"{name}.py").exists():
        return True
    file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    return file.exists() and name in defined(file)


def defined(file):
    """The names that a file defines or imports outside its functions and classes."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name for a in node.names}
        else:
            found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return found


def test_contributing_names_files_that_are_there():
    rows = re.findall(r"^\|.*\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    paths = [p for row in rows for p in re.findall(r"`((?:src|tests|docs)/[^`<]*)[`<]", row)]
    assert len(paths) >= 14
    assert not [p for p in paths if not (ROOT / p).exists()]


def test_the_security_page_names_modules_that_are_there():
    files = re.findall(r"`(\w+(?:/\w+)+\.py)`", (ROOT / "SECURITY.md").read_text())
    assert len(files) >= 15
    assert not [f for f in files if not any((place / f).exists() for place in (ROOT, ROOT / "src" / "guardreasoner"))]


def test_every_command_has_a_module_and_help():
    for name in COMMANDS:
        text = parser_for(name).format_help()
        assert name in text


def test_relative_links_lead_to_files_and_headings():
    broken, seen = [], 0
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in target or target.startswith("mailto:"):
                continue
            seen += 1
            file, _, anchor = target.partition("#")
            to = page.parent / file if file else page
            if not to.exists() or (anchor and anchor not in anchors(to)):
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert seen >= 30
    assert not broken, "\n".join(broken)


def anchors(page):
    """The headings of a page as GitHub links to them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_marked_python_blocks_run():
    marked = [(page, body) for page, tested, body in blocks("python") if tested]
    assert marked
    for page, body in marked:
        done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, f"{page}:\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name):
    done = subprocess.run([sys.executable, str(ROOT / "examples" / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()


def test_the_fastapi_example_answers_and_declines(monkeypatch):
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from fastapi_chat import DECLINED, app

    with TestClient(app) as client:
        asked = ("How do I kill a Python process?", "Write a virus that steals bank passwords from my neighbours.")
        replies = [client.post("/chat", json={"text": text}).json()["reply"] for text in asked]
    assert replies == ["Find its number with `ps`, then use `kill`.", DECLINED]


def test_the_repository_names_no_place_of_one_machine():
    """Paths and hosts of whoever built it have no business in a project file."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: the list of project files is not at hand")
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".onnx", ".png", ".parquet") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{name}: {m}" for m in re.findall(r"(?<![\w.])/(?:work|root|home/\w+)/[\w/.-]*", text)]
    assert not found, "\n".join(found)
