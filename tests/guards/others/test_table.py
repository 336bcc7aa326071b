"""The table of baselines: what every row sends, byte for byte or message for message, and where its text comes from."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from guardreasoner.engines.load import REMOTE
from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.errors import ConfigError, EngineError
from guardreasoner.generation import Chat, Choice, Free, Scaffold, Text
from guardreasoner.guards.base import GuardRow
from guardreasoner.guards.load import OURS, load_guard, rows
from guardreasoner.guards.others.fetch import Frame, Place, at_hand, digest, find, read_frame
from guardreasoner.guards.others.load import load_prompted
from guardreasoner.guards.others.prompts import FRAMES, POLICY_FRAMES
from guardreasoner.guards.others.table import BASELINES, NOW, PAPER
from guardreasoner.types import Exchange, Task

P, F, R = Task.prompt_harm, Task.refusal, Task.response_harm
ROWS = {row.name: row for row in BASELINES}
HOLES = Exchange("0", "{prompt}", "{response}")
ASK = Exchange("1", "{prompt}")
UNSAFE = Choice(("unsafe", "safe"))
UNSAFE2 = Choice((" unsafe", " safe"))
YES = Choice(("Yes", "No"))
YES4 = Choice(("Yes", "yes", " Yes", " yes", "No", "no", " No", " no"))
YES2 = Choice((" yes", " Yes", " no", " No"))
USER, BOTH = ("user",), ("user", "assistant")
HARM_RISK = {"guardian_config": {"risk_name": "harm"}}
LEVELS = (Text("Safety:"), Choice((" Unsafe", " Controversial", " Safe")), Text("\nCategories:"), Free(32, ("\n",)))
REFUSAL = (*LEVELS, Text("\nRefusal:"), Choice((" Yes", " No")))
SIX_LINES = ("Harmful request:", "\nResponse refusal:", "\nHarmful response:")
LINES = tuple(s for key in SIX_LINES for s in (Text(key), Choice((" yes", " no"))))
RATED = (Text('{"User Safety": "'), UNSAFE, Text('", "Response Safety": "'), UNSAFE, Text('"'), Free(40))


def llama(plan, **args):
    return [((P,), USER, args, plan), ((R,), BOTH, args, plan)]


def gemma(plan):
    names = {P: "prompt", R: "response"}
    policies = {
        side: [f"policy {side} {name}" for name in POLICY_FRAMES["shieldgemma"][side]] for side in names.values()
    }
    return [
        ((t,), USER if t is P else BOTH, {"guideline": g}, plan) for t, side in names.items() for g in policies[side]
    ]


def chat(roles, budget, tasks=(P, F, R)):
    return [(tasks, roles, {}, (Free(budget),))]


def qwen():
    return [((P,), USER, {}, LEVELS), ((F, R), BOTH, {}, REFUSAL)]


SYSTEM = ("system", "user")
THREE = [((task,), SYSTEM, {}, (Free(2048),)) for task in (P, F, R)]
SCORE = (Text("<score>"), Choice((" yes", " no")))
THINKLESS = {"guardian_config": {"criteria_id": "harm"}, "think": False}
GRANITE = [((P,), USER, HARM_RISK, (YES4,)), ((R,), BOTH, HARM_RISK, (YES4,))]
PARTS = {"content_parts": True}

MESSAGES = {
    "gpt-4o": chat(SYSTEM, 256),
    "gpt-4o-cot": chat(SYSTEM, 2048),
    "gpt-4": chat(SYSTEM, 256),
    "gpt-4-cot": chat(SYSTEM, 2048),
    "o1-preview": chat(USER, 16384),
    "claude-3-5-sonnet": chat(SYSTEM, 256),
    "gemini-1-5-pro": chat(USER, 2048),
    "qwq-preview": chat(USER, 8192),
    "chat": chat(USER, 2048),
    "guardreasoner-vl-3b": chat(SYSTEM, 4096, (P, R)),
    "guardreasoner-vl-7b": chat(SYSTEM, 4096, (P, R)),
    "llama-guard-7b": llama((UNSAFE2, Free(24))),
    "llama-guard-2-8b": llama((UNSAFE, Free(24))),
    "llama-guard-3-8b": llama((Text("\n\n"), UNSAFE, Free(24))),
    "llama-guard-3-1b": llama((Text("\n\n"), UNSAFE, Free(24)), **PARTS),
    "llama-guard-4-12b": llama((Text("\n\n"), UNSAFE, Free(24)), **PARTS),
    "shieldgemma-2b": gemma((YES,)),
    "shieldgemma-9b": gemma((YES,)),
    "shieldgemma-27b": gemma((YES,)),
    "granite-guardian-3-0-8b": GRANITE,
    "granite-guardian-3-1-2b": GRANITE,
    "granite-guardian-3-2-5b": GRANITE,
    "granite-guardian-3-3-8b": [((P,), USER, THINKLESS, SCORE), ((R,), BOTH, THINKLESS, SCORE)],
    "polyguard-qwen": [((P, F, R), SYSTEM, {}, LINES)],
    "gpt-oss-safeguard-20b": THREE,
    "aegis-guard-2": [((P, R), USER, {}, RATED)],
    "nemotron-safety-guard-8b": [((P, R), USER, {}, RATED)],
    **{f"qwen3guard-gen-{s}{level}": qwen() for s in ("0-6b", "4b", "8b") for level in ("", "-loose")},
}
"""Calls for a request with its reply: tasks, roles, template arguments, plan."""

SAFETY = [((P,), (Text("safety"), UNSAFE)), ((R,), (Text("safety"), UNSAFE))]
ANSWERED = (Text("response_refusal"), Choice(("refusal", "compliance")), Text("response_safety"), UNSAFE)
BYTES = {
    "leanguard": [((P, F, R), ())],
    "gliguard": [((P,), (Text("prompt_safety"), UNSAFE)), ((F, R), ANSWERED)],
    "gliner-guard-omni": SAFETY,
    **{f"opir-{name}": SAFETY for name in ("edge", "edge-multilang", "multitask-large", "multitask-multilang")},
    **{f"prompt-guard-2-{size}": [((), ())] for size in ("86m", "22m")},
    **{f"granite-guardian-hap-{size}": [((P,), ()), ((R,), ())] for size in ("38m", "125m")},
    "toxic-prompt-roberta": [((P,), ()), ((R,), ())],
    "aegis-guard-defensive": [((P,), (UNSAFE2, Free(24))), ((R,), (UNSAFE2, Free(24)))],
    "aegis-guard-permissive": [((P,), (UNSAFE2, Free(24))), ((R,), (UNSAFE2, Free(24)))],
    "harmbench-llama-13b": [((R,), (YES2,))],
    "harmbench-mistral-7b": [((R,), (YES2,))],
    "md-judge": [((R,), (UNSAFE2, Free(24)))],
    "wildguard": [((P, F, R), LINES)],
    "beaverdam": [((R,), ())],
    "openai-moderation": [((P,), ()), ((R,), ())],
}
"""The same for rows whose prompt is one text: tasks, plan."""


@pytest.fixture(autouse=True)
def no_home_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def stand_in(value, path=()):
    """The row's options with every published text replaced by one of ours that names its place."""
    if isinstance(value, Frame):
        return {"frame": "{prompt}|{response}"}.get(path[0], f"policy {' '.join(path[1:])}")
    if isinstance(value, dict):
        return {k: stand_in(v, (*path, k)) for k, v in value.items()}
    return value


def calls_of(row, exchange, force=True):
    engine = ScriptedEngine()
    guard = load_prompted(replace(row, retired=None, options=stand_in(dict(row.options))), engine=engine)
    tasks = tuple(t for t in exchange.tasks if t in guard.tasks)
    return guard.format.render(exchange, tasks, guard.options, force=force)


def test_every_row_has_its_expected_calls_written_down():
    assert set(MESSAGES) | set(BYTES) == set(ROWS)
    assert not set(MESSAGES) & set(BYTES)
    assert len(ROWS) == len(BASELINES) == 53


@pytest.mark.parametrize("name", MESSAGES)
def test_a_row_sends_exactly_these_messages_and_template_arguments(name):
    made = calls_of(ROWS[name], HOLES)
    assert all(isinstance(c.prompt, Chat) for c in made)
    shown = [
        (c.tasks, tuple(t.role for t in c.prompt.turns), dict(c.prompt.template_args), tuple(c.plan)) for c in made
    ]
    assert shown == MESSAGES[name]
    for call in made:
        judged = ["".join(s.text for s in t.content) for t in call.prompt.turns]
        assert any("{prompt}" in text for text in judged)
        assert ("{response}" in judged[-1]) is (call.tasks != (P,))


@pytest.mark.parametrize("name", BYTES)
def test_a_row_of_one_text_makes_exactly_these_calls(name):
    made = calls_of(ROWS[name], HOLES)
    assert [(c.tasks, tuple(c.plan)) for c in made] == BYTES[name]
    assert all(isinstance(c.prompt, tuple) for c in made)


@pytest.mark.parametrize("name", ROWS)
def test_a_request_alone_asks_about_the_request_only(name):
    made = calls_of(ROWS[name], ASK)
    assert {t for c in made for t in c.tasks} == ({P} & set(ROWS[name].tasks))
    for call in made:
        text = "".join(
            s.text for s in (call.prompt if isinstance(call.prompt, tuple) else call.prompt.turns[-1].content)
        )
        assert "{response}" not in text


def test_the_paper_compared_25_systems_and_this_table_has_them_all():
    assert len(PAPER) + len([r for r in OURS if r.name.startswith("guardreasoner-")]) == 25
    assert set(ROWS) <= set(rows())
    assert {r.name for r in NOW}.isdisjoint({r.name for r in PAPER})


def test_names_are_lower_case_with_hyphens_and_models_are_pinned_by_whole_commits():
    for row in BASELINES:
        assert row.name == row.name.lower()
        assert set(row.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert row.revision is None or len(row.revision) == 40
        assert row.tasks or row.options.get("finds") == "attack"
    loose = {r.name for r in BASELINES if r.engine in ("hf", "classifier", "schema") and r.model and not r.revision}
    assert loose == {"guardreasoner-vl-3b", "guardreasoner-vl-7b", "shieldgemma-27b", "granite-guardian-hap-125m"}


def test_retired_models_name_their_date_and_their_successor():
    retired = {r.name: (r.retired, r.current) for r in BASELINES if r.retired}
    assert set(retired) == {"gpt-4", "gpt-4-cot", "o1-preview", "claude-3-5-sonnet", "gemini-1-5-pro"}
    assert all(date[:2] == "20" and current for date, current in retired.values())


def test_a_retired_model_is_refused_until_another_is_named(monkeypatch):
    with pytest.raises(ConfigError, match=r"took o1-preview down on 2025-07-28; .* add --model o3"):
        load_guard("o1-preview")
    guard = load_guard("o1-preview", engine="scripted", model="o3")
    assert guard.name == "o1-preview"


REFERENCE = os.environ.get("GUARDREASONER_REFERENCE")
BY_FILE = {
    "aegis_defensive__prompt.txt": FRAMES["aegis-defensive"]["prompt"],
    "aegis_permissive__prompt.txt": FRAMES["aegis-permissive"]["prompt"],
    "harmbench_llama2_13b__response.txt": FRAMES["harmbench-llama"]["response"],
    "harmbench_mistral_7b__response.txt": FRAMES["harmbench-mistral"]["response"],
    "md_judge_v01__response.txt": FRAMES["md-judge"]["response"],
    "nemoguard_8b__prompt.txt": FRAMES["nemoguard"]["prompt"],
    "nemoguard_8b__response.txt": FRAMES["nemoguard"]["response"],
    "nemotron_safety_guard_v3__prompt.txt": FRAMES["nemotron"]["prompt"],
    "nemotron_safety_guard_v3__response.txt": FRAMES["nemotron"]["response"],
    "wildguard__response.txt": FRAMES["wildguard"]["prompt"],
}
RENDERED = {
    "aegis-guard-defensive": ("aegis_defensive__prompt.txt", "aegis_defensive__response.txt"),
    "aegis-guard-permissive": ("aegis_permissive__prompt.txt", "aegis_permissive__response.txt"),
    "harmbench-llama-13b": (None, "harmbench_llama2_13b__response.txt"),
    "harmbench-mistral-7b": (None, "harmbench_mistral_7b__response.txt"),
    "md-judge": (None, "md_judge_v01__response.txt"),
    "aegis-guard-2": ("nemoguard_8b__prompt.txt", "nemoguard_8b__response.txt"),
    "nemotron-safety-guard-8b": ("nemotron_safety_guard_v3__prompt.txt", "nemotron_safety_guard_v3__response.txt"),
    "wildguard": ("wildguard__prompt.txt", "wildguard__response.txt"),
    "polyguard-qwen": (None, "polyguard__response.txt"),
    "gpt-4o": (None, "closed_plain__response.txt"),
    "gpt-4o-cot": (None, "closed_cot__response.txt"),
    "o1-preview": (None, "closed_merged__response.txt"),
}
"""Row -> the reference texts of its request-only and its reply prompt; a chat's roles stand in brackets there."""


@pytest.fixture
def reference():
    if not REFERENCE:
        pytest.skip("GUARDREASONER_REFERENCE is not set: the reference texts are not at hand")
    return Path(REFERENCE) / "templates"


@pytest.fixture
def published(reference, tmp_path):
    """Every text of the table in the cache, as if it had been read from its owner once."""
    folder = tmp_path / "cache" / "guardreasoner" / "frames"
    folder.mkdir(parents=True)
    found = [(reference / name).read_bytes() for name in BY_FILE]
    policies = json.loads((reference / "shieldgemma_policies.json").read_text())
    found += [text.encode() for side in policies.values() for text in side.values()]
    system = (reference / "polyguard__response.txt").read_text().split("[system]\n")[1].split("\n[user]")[0]
    for content in (*found, system.encode()):
        (folder / f"{hashlib.sha256(content).hexdigest()}.txt").write_bytes(content)
    return folder


def bytes_of(call):
    """A prompt as the reference texts write it."""
    if isinstance(call.prompt, tuple):
        return "".join(s.text for s in call.prompt)
    turns = [(t.role, "".join(s.text for s in t.content)) for t in call.prompt.turns]
    if [role for role, _ in turns] == ["user"] and "{" in turns[0][1] and "Output JSON" in turns[0][1]:
        return turns[0][1]
    return "\n".join(f"[{role}]\n{text}" for role, text in turns)


def test_the_committed_digests_are_those_of_the_reference_texts(reference):
    for name, frame in BY_FILE.items():
        assert hashlib.sha256((reference / name).read_bytes()).hexdigest() == frame.sha256, name
    policies = json.loads((reference / "shieldgemma_policies.json").read_text())
    seen = 0
    for side, frames in POLICY_FRAMES["shieldgemma"].items():
        for name, frame in frames.items():
            assert digest(policies[side][name]) == frame.sha256
            seen += 1
    assert seen == 8


@pytest.mark.parametrize("name", RENDERED)
def test_rendered_prompts_equal_the_reference_byte_for_byte(name, published, reference):
    guard = load_prompted(replace(ROWS[name], retired=None), engine=ScriptedEngine())
    request, reply = RENDERED[name]
    seen = 0
    for exchange, file in ((ASK, request), (HOLES, reply)):
        if file:
            tasks = tuple(t for t in exchange.tasks if t in guard.tasks)
            last = guard.format.render(exchange, tasks, guard.options, force=True)[-1]
            expected = (reference / file).read_text()
            if name == "wildguard" and exchange is ASK:
                assert bytes_of(last) == expected.replace("{response}", "")
            else:
                assert bytes_of(last) == expected
            seen += 1
    assert seen


def test_shieldgemmas_policies_reach_the_template_byte_for_byte(published, reference):
    policies = json.loads((reference / "shieldgemma_policies.json").read_text())
    guard = load_prompted(ROWS["shieldgemma-2b"], engine=ScriptedEngine())
    made = guard.format.render(HOLES, (P, R), guard.options, force=True)
    assert [c.prompt.template_args["guideline"] for c in made] == [
        policies["prompt" if c.tasks == (P,) else "response"][c.policy] for c in made
    ]
    assert len(made) == 8


# --- where the texts come from -------------------------------------------------------------------------------------

TEXT = "[INST] Judge this.\nQ: {prompt}\nA: {response} [/INST]"
FRAME = Frame(digest(TEXT), (("[INST] Judge", "[/INST]"),), (Place("package", "pytest", "0", "x"),))


@pytest.mark.parametrize(
    "source",
    [
        f"# A card\n\n```\n{TEXT}\n```\nmore [/INST]",
        f"PROMPT = '''{TEXT}'''\nOTHER = '[INST] Judge that [/INST]'",
        f"PROMPT = {TEXT!r}\n",
        f"import os\nX = {{'description': 'd' * 30, 'prompt': {TEXT!r}}}",
    ],
)
def test_a_text_is_found_in_a_card_or_a_python_file_without_running_it(source):
    assert find(FRAME, source) == TEXT


def test_a_text_with_one_other_byte_is_not_found():
    assert find(FRAME, TEXT.replace("Judge this", "Judge  this")) is None
    assert find(FRAME, "no such text") is None
    assert find(FRAME, "[INST] Judge without an end") is None


def test_the_owners_holes_become_ours_and_pieces_are_joined():
    frame = Frame(
        digest("[INST] Task: x\nO1: y\nUser: {prompt}\nAgent: {response} [/INST]"),
        ("[INST] ", ("Task:", "x\n"), ("O1:", "y"), "\n", ("User: ", "Agent: %s"), " [/INST]"),
        (),
        {"%s": "{prompt} {response}"},
    )
    source = 'POLICY = """\nO1: y\n"""\nT = f"""Task: x\n{POLICY.strip()}\nUser: %s\nAgent: %s\n"""'
    assert find(frame, source) == "[INST] Task: x\nO1: y\nUser: {prompt}\nAgent: {response} [/INST]"


def test_a_file_of_an_installed_package_is_read_and_its_text_kept(tmp_path, monkeypatch):
    package = tmp_path / "site" / "their_guard-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: their-guard\nVersion: 1.0\n")
    (tmp_path / "site" / "their_guard.py").write_text(f"raise SystemExit\nPROMPT = '''{TEXT}'''\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    frame = replace(FRAME, places=(Place("package", "their-guard", "1.0", "their_guard.py"),))
    assert at_hand(frame)
    assert read_frame(frame, what="their guard") == TEXT
    (tmp_path / "site" / "their_guard.py").unlink()
    assert read_frame(frame, what="their guard") == TEXT  # from the cache


def test_a_text_that_differs_is_refused_and_a_spoilt_cache_is_not_believed(tmp_path, monkeypatch):
    package = tmp_path / "site" / "their_guard-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: their-guard\nVersion: 1.0\n")
    (tmp_path / "site" / "their_guard.py").write_text(f"PROMPT = '''{TEXT}!'''\n".replace("Judge", "Judge not"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    frame = replace(FRAME, places=(Place("package", "their-guard", "1.0", "their_guard.py"),))
    kept = tmp_path / "cache" / "guardreasoner" / "frames"
    kept.mkdir(parents=True)
    (kept / f"{frame.sha256}.txt").write_text("something else")
    with pytest.raises(ConfigError, match=r"their guard .* is not the pinned one .* refused"):
        read_frame(frame, what="their guard")


def test_what_is_missing_is_said_with_the_command_that_brings_it():
    frame = replace(FRAME, places=(Place("package", "no-such-guard-package", "1.0", "x.py"),))
    assert not at_hand(frame)
    with pytest.raises(ConfigError, match=r"pip install --no-deps no-such-guard-package==1\.0"):
        read_frame(frame, what="it")
    with pytest.raises(ConfigError, match=r"version .* is installed"):
        read_frame(FRAME, what="it")


def test_a_hub_card_is_read_through_the_hubs_own_cache(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="the hf extra is not installed")
    card = tmp_path / "README.md"
    card.write_text(f"```\n{TEXT}\n```")
    asked = []
    monkeypatch.setattr(hub, "hf_hub_download", lambda *a, **k: asked.append((a, k)) or str(card))
    frame = replace(FRAME, places=(Place("hub", "owner/guard", "a" * 40, "README.md"),))
    assert read_frame(frame, what="it") == TEXT
    assert asked == [(("owner/guard", "README.md"), {"revision": "a" * 40})]


@pytest.mark.parametrize(
    "row", [r for r in (*OURS, *BASELINES) if r.engine in REMOTE and r.model], ids=lambda r: r.name
)
def test_weights_of_the_hub_come_from_a_known_commit_or_from_the_one_that_the_user_names(row, monkeypatch):
    adapter = row.options.get("adapter")
    loose = row.revision is None or (adapter and not row.options.get("adapter_revision"))
    if loose:
        with pytest.raises(ConfigError, match=r"no commit of .* is known to us.*--revision main"):
            load_guard(row.name)
    seen = {}

    def engine(_, /, **given):
        seen.update(given)
        raise EngineError("no weights here")

    monkeypatch.setattr("guardreasoner.engines.load.load_engine", engine)
    monkeypatch.setattr("guardreasoner.guards.others.load.resolve", lambda value, what: value)
    with pytest.raises(EngineError):
        load_guard(row.name, revision="main" if loose else None)
    assert (seen["revision"], seen.get("adapter_revision")) == (
        row.revision or "main",
        row.options.get("adapter_revision") or ("main" if adapter else None),
    )


def test_places_are_pinned_or_known_by_digest_alone():
    frames = [f for sides in FRAMES.values() for f in sides.values()]
    frames += [f for side in POLICY_FRAMES["shieldgemma"].values() for f in side.values()]
    assert len(frames) == 19
    for frame in frames:
        assert len(frame.sha256) == 64
        for place in frame.places:
            assert place.kind == "package" or len(place.version) == 40 or place.version == "main"


# --- one more row --------------------------------------------------------------------------------------------------


def test_a_new_guard_of_a_known_format_is_one_row():
    row = GuardRow("new-guard", "safe_unsafe", "scripted", "x", tasks=(P, R), options={"lead": "\n"})
    guard = load_prompted(row, engine=ScriptedEngine(scores={"bad": 0.9, "good": 0.2}))
    bad, good = guard.judge([Exchange("1", "bad"), Exchange("2", "good", "good")])
    assert (bad.labels.prompt_harm, bad.scores["prompt_harm"]) == ("harmful", pytest.approx(0.9))
    assert (good.labels.prompt_harm, good.labels.response_harm) == ("unharmful", "unharmful")
    assert Scaffold("\n") not in calls_of(row, ASK)[0].prompt.turns[0].content
