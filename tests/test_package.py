"""The wheel works where nothing else is installed, leaves HOME alone, and asks no network."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK_NETWORK = """
import socket, sys
def refuse(*args, **kwargs):
    sys.stderr.write("CONNECTION TRIED\\n")
    raise OSError("no network in this test")
socket.socket.connect = refuse
socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(out.glob("*.whl"))


def test_the_wheel_carries_the_model_and_nothing_of_the_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "guardreasoner/models/nano/model.onnx" in names
    assert "guardreasoner/data/examples.jsonl" in names
    assert any(n.startswith("guardreasoner/recipes/") and n.endswith(".yaml") for n in names)
    assert not [n for n in names if n.startswith("tests")]
    assert "guardreasoner/models/mini/model.onnx.data" in names
    assert wheel.stat().st_size <= 120 * 10**6


@pytest.mark.slow
def test_the_wheel_installs_in_a_clean_environment_and_judges(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run(install, check=True, capture_output=True)
    installed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True)
    assert "torch" not in {p["name"] for p in json.loads(installed.stdout)}
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(BLOCK_NETWORK)
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [tmp_path / "env" / "bin" / "guardreasoner", "check", "How do I kill a process?", "--json"],
        env={"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "block")},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "CONNECTION TRIED" not in done.stderr
    assert json.loads(done.stdout)["status"] == "ok"
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize("there", [("python3.12", "python3.11"), ("python3.11",), ("python3",), ()])
def test_make_takes_the_newest_python_that_runs(tmp_path, there):
    for name in (*there, "python3.13"):
        works = f'exec "{sys.executable}" "$@"' if name in there else "echo no such version >&2; exit 127"
        (tmp_path / name).write_text(f"#!/bin/sh\n{works}\n")
        (tmp_path / name).chmod(0o755)
    for tool in ("sh", "make"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    command = ["make", "-s", "-f", str(ROOT / "Makefile"), "--eval=show:;@: $(info found $(PYTHON))", "show"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    wanted = f"{tmp_path}/{there[0]}" if there else ""
    assert done.stdout.strip() == f"found {wanted}".strip(), done.stderr
