"""`guardreasoner guards`: the table, what is missing, and what one row says."""

import json
import tomllib
from pathlib import Path

import pytest

from guardreasoner.cli import doctor
from guardreasoner.cli.main import main
from guardreasoner.cli.tables import show
from guardreasoner.guards.load import rows
from guardreasoner.guards.others.prompts import FRAMES
from guardreasoner.guards.others.readiness import missing
from guardreasoner.guards.others.table import BASELINES

ROWS = rows()


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """No keys, no weights, no texts, whatever the machine has."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "240")
    return tmp_path


def listed(capsys, *words):
    assert main(["guards", *words]) == 0
    return capsys.readouterr().out


def as_rows(out):
    return {row["name"]: row for row in map(json.loads, out.splitlines())}


def test_the_table_names_every_guard_with_its_tasks_and_what_it_needs(capsys):
    out = listed(capsys, "--all")
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert len(ROWS) == 63
    for name in ROWS:
        assert name in lines
    assert "P-R" in lines["llama-guard-3-8b"]
    assert "--R" in lines["beaverdam"]
    assert "PFR" in lines["wildguard"]
    assert "--option first=" in lines["cascade"]
    assert "set OPENAI_API_KEY" in lines["gpt-4o"]
    assert "now gpt-5.6-sol" in lines["gpt-4"]
    assert "accept its licence" in lines["llama-guard-3-8b"]
    assert [lines[name].split()[-1] for name in ("guardreasoner", "nano", "micro", "mini", "constant")] == ["yes"] * 5
    assert f"{len(ROWS)} guards" in out


def test_a_family_that_is_listed_can_be_asked_for(capsys):
    names = [line.split()[1] for line in listed(capsys, "shieldgemma").splitlines() if line.startswith("name ")]
    assert names == ["shieldgemma-2b", "shieldgemma-9b", "shieldgemma-27b"]
    assert listed(capsys, "wildguard").count("name  ") == 1


def test_advice_in_brackets_is_printed_whole_and_no_line_ends_in_spaces(capsys, monkeypatch):
    monkeypatch.setattr("guardreasoner.cli.guards.missing", lambda row: ["pip install 'guardreasoner[hf]'"])
    lines = listed(capsys, "--all").splitlines()
    assert sum(line.endswith("no: pip install 'guardreasoner[hf]'") for line in lines) == len(ROWS)
    show("without AUROC: pip install 'guardreasoner[eval]'")
    assert capsys.readouterr().out == "without AUROC: pip install 'guardreasoner[eval]'\n"


def test_alone_it_shows_what_runs_here_and_every_other_guard_by_family_on_one_screen(capsys):
    out = listed(capsys)
    words = out.split()
    assert {name for name in ROWS if name not in words} == set()
    assert len(out.splitlines()) <= 24
    here, others = out.split("others")
    assert "nano" in here
    assert "llama-guard-3-8b" in others


def test_a_name_is_whole_where_nobody_looks_however_narrow_the_window(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    for words in ((), ("--all",)):
        assert set(ROWS) <= set(listed(capsys, *words).split())


def test_doctor_names_every_extra_what_it_is_for_and_what_it_lacks(capsys, monkeypatch):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(doctor.PURPOSES) - {""} == set(project["optional-dependencies"]) - {"dev"}
    monkeypatch.setattr(
        doctor, "requires", lambda name: ["numpy>=1", "no-such-a>=1; extra == 'ray'", "numpy; extra == 'hf'"]
    )
    assert main(["doctor", "--json"]) == 0
    found = {row["what"]: row for row in as_found(capsys.readouterr().out)}
    assert found["ray"] == {
        "what": "ray", "ok": False, "needed": False,
        "detail": "batch runs over several machines: pip install 'guardreasoner[ray]' (lacks no-such-a)",
    }  # fmt: skip
    assert found["base"]["ok"]
    assert found["hf"]["ok"]


def as_found(out):
    return [json.loads(line) for line in out.splitlines()]


def test_unconfirmed_bytes_are_said_in_the_table_and_nowhere_else(capsys):
    lines = {line.split()[0]: line for line in listed(capsys, "--all").splitlines() if line.strip()}
    unsure = {row.name for row in BASELINES if not row.confirmed}
    assert {name for name in ROWS if "unconfirmed" in lines[name]} == unsure
    assert {"llama-guard-7b", "llama-guard-2-8b", "llama-guard-4-12b", "granite-guardian-3-3-8b"} <= unsure


def test_json_has_one_object_per_guard_and_ready_keeps_those_that_run(capsys, monkeypatch):
    everything = as_rows(listed(capsys, "--json"))
    assert set(everything) == set(ROWS)
    assert not any(row["ready"] for name, row in everything.items() if name in {r.name for r in BASELINES})
    assert everything["claude-3-5-sonnet"]["retired"] == "2025-10-28"
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    ready = as_rows(listed(capsys, "--json", "--ready"))
    assert {"openai-moderation", "gpt-4o", "gpt-4o-cot"} <= set(ready)
    assert "chat" not in ready
    assert "gpt-4" not in ready


def test_one_guard_is_shown_with_everything_known_about_it(capsys):
    out = listed(capsys, "shieldgemma-9b")
    for part in (
        "b8b636016df4540721a098c7aab91c97ec6ee508",
        "guideline",
        "gemma",
        "one call per policy",
        "prompt_harm",
    ):
        assert part in out


def test_an_unknown_guard_names_the_nearest(capsys):
    assert main(["guards", "wildgaurd"]) == 1
    assert "did you mean 'wildguard'" in capsys.readouterr().err


def test_weights_in_the_hubs_cache_make_a_guard_ready(bare):
    row = ROWS["llama-guard-3-8b"]
    assert missing(row) == ["weights: download meta-llama/Llama-Guard-3-8B (gated: accept its licence, set HF_TOKEN)"]
    folder = bare / "huggingface" / "hub" / "models--meta-llama--Llama-Guard-3-8B" / "snapshots"
    other, own = folder / ("0" * 40), folder / row.revision
    for snapshot in (other, own):
        snapshot.mkdir(parents=True)
    (other / "model.safetensors").touch()
    assert missing(row)  # another commit's weights are not these
    (own / "model-00001-of-00004.safetensors").touch()
    assert missing(row) == []


def test_all_that_a_guard_lacks_is_named_at_once(monkeypatch):
    monkeypatch.setattr("guardreasoner.guards.others.readiness.find_spec", lambda module: None)
    wants = {
        "gpt-4o": ["pip install", "set OPENAI_API_KEY"],
        "claude-3-5-sonnet": ["taken down", "pip install", "set ANTHROPIC_API_KEY"],
        "guardreasoner-vl-3b": ["pip install", "--revision", "weights"],
        "wildguard": ["pip install", "weights", "prompt text"],
    }
    for name, starts in wants.items():
        assert [lack[: len(start)] for lack, start in zip(missing(ROWS[name]), starts, strict=True)] == starts


def test_an_adapter_and_a_prompt_text_are_wanted_too(bare):
    aegis = missing(ROWS["aegis-guard-permissive"])
    assert [lack.split(":")[0] for lack in aegis] == ["weights", "weights", "prompt text"]
    wildguard = missing(ROWS["wildguard"])
    assert any("pip install --no-deps wildguard==1.0.1" in lack for lack in wildguard)
    kept = bare / "guardreasoner" / "frames"
    kept.mkdir(parents=True)
    (kept / f"{FRAMES['wildguard']['prompt'].sha256}.txt").touch()
    assert not any("prompt text" in lack for lack in missing(ROWS["wildguard"]))


def test_a_missing_library_is_said_with_its_extra(monkeypatch):
    from guardreasoner.guards.others import readiness

    monkeypatch.setattr(readiness, "find_spec", lambda name: None)
    assert "pip install 'guardreasoner[hf]'" in missing(ROWS["wildguard"])
    assert "pip install 'guardreasoner[openai]'" in missing(ROWS["gpt-4o"])


def test_a_policy_for_a_guard_that_follows_none_is_an_error_in_one_sentence(bare, capsys):
    (bare / "policy.txt").write_text("No hats.")
    words = ["check", "Where?", "--guard", "llama-guard-3-8b", "--engine", "scripted", "--policy"]
    assert main([*words, str(bare / "policy.txt")]) == 1
    assert "llama-guard-3-8b follows no policy but the one it was trained on" in capsys.readouterr().err
