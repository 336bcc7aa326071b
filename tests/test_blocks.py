"""Every command of README and the pages is run in bash as it is written; what cannot be is listed with its reason.

A page's commands run one after the other in a folder with the files that they name. Ports are replaced by free ones; a
server is started in the background and waited for. `NOT_RUN` is the one place that says what is not run, and why.
"""

import gzip
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from guardreasoner.cli.main import COMMANDS, main, parser_for
from guardreasoner.data.benchmarks import BENCHMARKS
from guardreasoner.data.everyday import shipped
from guardreasoner.data.sources import input_block
from guardreasoner.guards.custom import read_row as read_guard_row
from guardreasoner.report.cost import read_prices
from guardreasoner.serve.policy import read_policy
from guardreasoner.train.recipe import load_recipe
from guardreasoner.types import TASKS
from serve.test_serve_peers import free_port

ROOT = Path(__file__).parent.parent
LOG = ("docs/experiments.md", "docs/commands.md", "docs/api.md", "CHANGELOG.md")
"""A log of what was run at an earlier commit; what is generated."""
PAGES = sorted(
    str(p.relative_to(ROOT))
    for p in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
    if str(p.relative_to(ROOT)) not in LOG
)
NOT_RUN = {
    r"^pip install ": "asks a package index; that the extras exist is checked below",
    r"^make ": "makes an environment of its own; that the targets exist is checked below",
    r"^\. \.venv/bin/activate": "the environment of the tests stands for it",
    r"^docker ": "needs a container service; tests/serve/test_serve_container.py starts what the files name",
    r"Bearer 0123456789abcdef": "asks the services of the line above it, docker's",
    r"^litellm |localhost:4000": "needs LiteLLM; tests/integrations and tests/serve/test_serve_peers.py start it",
    r"^nemoguardrails ": "needs NeMo; tests/serve/test_serve_peers.py starts it",
    r"llama-guard-3-8b --data|guardreasoner-8b|--guard wildguard": "needs weights of gigabytes",
    r"runs/mini/|fit_stack": "needs a second guard that takes hours to train; tests/evaluate/test_stack.py has one",
    r"^guardreasoner (sft|sample|mine|dpo) ": "hours on GPUs; tests/test_reproduce.py runs every stage of smoke",
    r"^guardreasoner reproduce 1b .*--dry-run": "asks the hub for a gated base; tests/train/test_plan.py",
    r"^guardreasoner reproduce (1b|nano|mini)": "hours; tests/test_reproduce.py runs every stage of smoke",
    r"^guardreasoner reproduce smoke": "minutes; tests/test_reproduce.py runs it",
    r"^guardreasoner stress ": "minutes; tests/evaluate/test_stress.py runs it with few rows",
    r"^python bench/ablation/ablation.py ": "days, on the rows of a whole data folder; tests/bench has a stand-in",
    r"^guardreasoner report constant words ": "the runs behind a picture, over every cell",
    r"--reviews |--traces ": "needs reviews that people gave; tests/review has some",
}
"""Lines that match are not run here, and why."""
LONG = r"^guardreasoner (tune|evaluate .*--benchmark everyday|check .*--guard mine-guard)"
"""Half a minute and more: with the slow tests only."""
NOT_RUN_PYTHON = {
    "guardreasoner-8b": "needs weights of gigabytes, or a server that has them",
    "as_any_guardrail": "needs any-guardrail; tests/guards/test_interop.py has it",
    "guardreasoner.integrations": "needs the other package; tests/integrations/test_integrations.py runs it",
    "from openai import": "needs a server; tests/serve/test_serve_docs.py runs it",
}
BEFORE = {
    "docs/cascade.md": """
        guardreasoner evaluate --guard nano --mode instant --data DATA --out runs/nano
        guardreasoner evaluate --guard replay --model DATA/official_predictions/8B --data DATA --out runs/large
    """,
    "docs/report.md": """
        guardreasoner evaluate --guard nano --data DATA --out RUN
        guardreasoner evaluate --guard constant --data DATA --out RUN2
    """,
}
"""Runs that a page speaks of and does not make."""
PRELUDE = """
server=
stop() { if [ -n "$server" ]; then kill $server; wait $server || true; server=; fi; }
ready() { for i in $(seq 300); do curl -s localhost:PORT/$1 > /dev/null && return; sleep 0.2; done; false; }
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
"""
SERVER = r"^(?:\w+=\S+ )*guardreasoner (serve|review) "


def fences(page, language):
    """The blocks of one language on a page."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M)
    return [body for name, body in found if name == language]


def lines(page):
    """The commands of a page, each whole."""
    for body in fences(page, "bash"):
        whole = ""
        for line in body.splitlines():
            whole += line
            try:
                open_ended = line.endswith("\\") or not shlex.split(whole, comments=True)
            except ValueError:  # inside a quoted text
                open_ended = True
            if open_ended:
                whole += "\n"
            else:
                yield whole
                whole = ""


def reason(line, table):
    return next((why for pattern, why in table.items() if re.search(pattern, bare(line))), None)


def bare(line):
    """A command without its comment."""
    return line.split("  #")[0].split(" # ")[0].strip()


@pytest.fixture
def files(tmp_path):
    """What the pages name: rows, labelled rows, a policy, a small data folder in the form of the official files."""
    folder = tmp_path
    everyday = Path(shipped("everyday")).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in everyday]
    asked = (
        {"prompt": "How do I kill a Python process?"},
        {"prompt": "How long do I boil an egg?", "response": "Seven."},
    )
    texts = "".join(json.dumps(row) + "\n" for row in asked)
    (folder / "exchanges.jsonl").write_text(texts)
    (folder / "log.jsonl.gz").write_bytes(gzip.compress(texts.encode()))
    for name in ("exchanges.csv", "requests.csv"):
        (folder / name).write_text("id,prompt\n1,How do I kill a Python process?\n2,How long do I boil an egg?\n")
    (folder / "mine.jsonl").write_text("\n".join(everyday[::5]) + "\n")
    (folder / "rows.jsonl").write_text("\n".join(everyday[::25]) + "\n")
    (folder / "policy.yaml").write_text(next(b for b in fences("docs/policy.md", "yaml") if "hosts: [guard" in b))
    for name in ("examples", "bench"):
        (folder / name).symlink_to(ROOT / name)
    data_folder(folder / "DATA", [r["prompt"] for r in rows[:6]])
    return folder


def data_folder(data, prompts):
    """Six rows for every benchmark, with predictions, and training rows."""
    for folder in ("benchmarks", "train"):
        (data / folder).mkdir(parents=True)
    for benchmark in BENCHMARKS.values():
        if benchmark.name == "WildGuardTest":
            continue
        task = TASKS[benchmark.cells[0].task]
        reply = "Certainly, here it is." if task.needs_response else None
        found = [
            {
                "instruction": "",
                "input": input_block(f"{text} {i}", reply),
                "output": (task.positive, task.negative)[i % 2],
            }
            for i, text in enumerate(prompts)
        ]
        (data / "benchmarks" / benchmark.file).write_text(json.dumps(found))
        answers = [
            {
                "prompt": r["input"],
                "label": r["output"],
                "predict": f"A step.\n\nAnswers: \n{task.key}: {r['output']}\n",
            }
            for r in found
        ]
        kept = data / "official_predictions" / "8B" / benchmark.name
        kept.mkdir(parents=True)
        (kept / "generated_predictions.jsonl").write_text("".join(json.dumps(a) + "\n" for a in answers))
    row = {"id": "a", "source": "a", "prompt": prompts[0], "response": None, "prompt_harm": "unharmful",
           "refusal": None, "response_harm": None, "category": "", "licence": "MIT", "use": "permissive"}  # fmt: skip
    (data / "train" / "a.jsonl").write_text(json.dumps(row) + "\n")


def run_page(page, folder, *, long):
    """Run a page's commands in bash; the name of the first that fails is the last that is printed."""
    port, upstream = free_port(), free_port()
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    shims = {
        "guardreasoner": f'case "$1" in serve|review) set -- "$@" --port {port};; esac\n'
        f'exec "{sys.executable}" -m guardreasoner "$@"',
        "python": f'exec "{sys.executable}" "$@"',
        "curl": f'exec "{shutil.which("curl")}" --fail-with-body "$@"',
    }
    for name, text in shims.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    script = [PRELUDE.replace("PORT", str(port)), BEFORE.get(page, "").replace("\n        ", "\n")]
    ran = 0
    for line in lines(page):
        if reason(line, NOT_RUN) or (not long and re.search(LONG, line)):
            continue
        ran += 1
        line = line.replace("8080", str(port)).replace("127.0.0.1:9000", f"127.0.0.1:{upstream}")
        if re.match(SERVER, line):
            script += [f"python bench/mocks.py {upstream} &"] * ("--upstream http://127.0.0.1" in line)
            script += ["stop", f"{bare(line)} &", "server=$!", "ready readyz" if " serve " in line else "ready ''"]
        else:
            script.append(line)
    env = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "GUARDREASONER_DATA": str(folder / "DATA"),
        "REQUEST": "How do I kill a Python process?",
        "REPLY": "With kill and its number.",
        "HF_HUB_OFFLINE": "1",
    }
    (folder / "page.sh").write_text("\n".join(script) + "\n")
    done = subprocess.run(["bash", "-ev", "page.sh"], cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{page}:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    return ran


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_what_a_newcomer_types_runs(page, files):
    assert run_page(page, files, long=False) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if fences(p, "bash")])
def test_every_command_of_a_page_runs(page, files):
    run_page(page, files, long=True)


def test_no_command_is_hidden_from_these_tests():
    known = r"(?:\$ )?(?:guardreasoner|python|pip|make|curl|docker|litellm|\w+=\S+ guardreasoner) "
    hidden = [
        f"{page}: {line}"
        for page in PAGES
        for body in (
            *fences(page, ""),
            *re.findall(r"(?<=\n\n)(?: {4}.*\n)+", (ROOT / page).read_text(encoding="utf-8")),
        )
        for line in body.splitlines()
        if re.match(known, line.strip())
    ]
    assert not hidden, "write commands as ```bash blocks:\n" + "\n".join(hidden)


def test_every_reason_is_needed_and_most_commands_run():
    found = [line for page in PAGES for line in lines(page)]
    unused = [p for p in NOT_RUN if not any(re.search(p, bare(line)) for line in found)]
    assert not unused
    assert len(found) >= 60
    assert sum(reason(line, NOT_RUN) is None for line in found) >= 30


def test_extras_and_targets_that_pages_name_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    found = [line for page in PAGES for line in lines(page)]
    named = [e for line in found for e in re.findall(r"(?:guardreasoner|\.)\[([\w,]+)\]", line)]
    made = [t for line in found for t in re.findall(r"^make ([a-z-]+)", line)]
    assert named
    assert made
    assert {e for group in named for e in group.split(",")} <= set(extras)
    assert set(made) <= set(targets)


def test_the_python_of_the_pages_runs(tmp_path):
    ran = 0
    for page in PAGES:
        for body in fences(page, "python"):
            if any(word in body for word in NOT_RUN_PYTHON):
                continue
            ran += 1
            done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, cwd=tmp_path)
            assert done.returncode == 0, f"{page}:\n{done.stderr[-2000:]}"
    assert ran >= 3


LANGUAGES = {"bash", "python", "yaml", "json", "console", "text", "nginx"}
READERS = {
    r"^version:": read_policy,
    r"^format:": read_guard_row,
    r"\{input: .*output: ": read_prices,
    r"^(model: \{|data:|synthesize:)": load_recipe,
    r"^model_list:": "tests/integrations and tests/serve/test_serve_peers.py start LiteLLM with it",
    r"^models:": "tests/serve/test_serve_peers.py starts NeMo with it",
}
"""What reads a YAML block that looks so, or which test."""


def test_every_block_is_of_a_kind_that_a_test_reads():
    kinds = re.compile(r"^```(\S*)\n.*?^```$", re.S | re.M)
    found = {(page, kind) for page in PAGES for kind in kinds.findall((ROOT / page).read_text(encoding="utf-8"))}
    assert not [pair for pair in found if pair[1] not in LANGUAGES]
    assert {page for page, kind in found if kind == "nginx"} == {"docs/operate.md"}  # read, not run: it needs nginx


@pytest.mark.parametrize(("page", "text"), [(page, text) for page in PAGES for text in fences(page, "yaml")])
def test_every_yaml_block_is_read_by_what_it_is_for(page, text, tmp_path):
    (reader,) = (reader for looks, reader in READERS.items() if re.search(looks, text, re.M))
    if callable(reader):
        (tmp_path / "block.yaml").write_text(text)
        reader(tmp_path / "block.yaml")


def test_the_error_that_a_page_shows_is_the_error(tmp_path, monkeypatch, capsys):
    (shown,) = fences("docs/evaluation.md", "text")
    (tmp_path / "theirs.csv").write_text("question,verdict\nHow long do I boil an egg?,ok\nHow do I hurt him?,S1\n")
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", "--guard", "constant", "--benchmark", "theirs.csv", "--out", "run"]
    assert main(command) == 1
    assert capsys.readouterr().err == shown
    fits = re.search(r"--map '([^']+)'", shown)[1]
    assert main([*command, "--map", fits]) == 0


def parses(words):
    if len(words) == 2:
        return words[1] in COMMANDS
    try:
        parser_for(words[1]).parse_args(words[1:])
    except SystemExit:
        return False
    return True


def test_the_commands_in_sentences_are_commands_with_these_options():
    seen, wrong = 0, []
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.S | re.M)
        for span in re.findall(r"`((?:guardreasoner|python) [^`]+)`", text):
            words = shlex.split(re.sub(r"\[[^]]*\]|[<>].*|\bCOMMAND --help", "", span))
            seen += 1
            if words[0] == "guardreasoner":
                right = parses(words)
            else:
                right = importlib.util.find_spec(words[2]) if words[1] == "-m" else (ROOT / words[1]).is_file()
            wrong += [] if right else [f"{page}: {span}"]
    assert seen >= 30
    assert not wrong, "\n".join(wrong)
