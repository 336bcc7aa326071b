"""The policy file: what it may say, what it decides, and how it fails."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from guardreasoner.errors import ConfigError, UnknownName
from guardreasoner.serve.decide import LONG, blocks, decide
from guardreasoner.serve.policy import ROUTES, Policy, Rules, policy_of, read_policy
from guardreasoner.types import Labels, Task, Verdict

DOCS = Path(__file__).parents[2] / "docs"


def verdict(prompt=0.1, response=None, *, calibrated=True, harm=None, status="ok", notes=None):
    scores = {"prompt_harm": prompt, "refusal": None if response is None else 0.1, "response_harm": response}
    harm_words, refusal_words = ("harmful", "unharmful"), ("refusal", "compliance")
    words = zip(scores.values(), (harm_words, refusal_words, harm_words), strict=True)
    labels = Labels(*(None if score is None else pair[score < 0.5] for score, pair in words))
    return Verdict("x", "g", "full", status, labels, scores, calibrated=calibrated, harm=harm, notes=notes or {})


def decided(given, **rules):
    done = decide(given, Rules(**rules))
    return done.flagged, done.notes["action"]


def test_without_a_policy_the_labels_decide():
    assert decided(verdict(0.1)) == (False, "pass")
    assert decided(verdict(0.9)) == (True, "block")
    assert decided(verdict(0.1, 0.9)) == (True, "block")


def test_a_refusal_is_not_harm_unless_a_threshold_says_so():
    given = verdict(0.1, 0.1)
    assert decided(given) == (False, "pass")
    assert decided(given, thresholds={"refusal": 0.05}) == (True, "block")


def test_thresholds_decide_on_calibrated_scores_and_leave_the_labels_alone():
    for score, limit, flagged in ((0.6, 0.7, False), (0.7, 0.7, True), (0.3, 0.2, True), (0.9, None, False)):
        done = decide(verdict(score), Rules(thresholds={Task.prompt_harm: limit}))
        assert done.flagged is flagged
        assert done.labels == verdict(score).labels


def test_where_scores_are_not_calibrated_labels_decide_and_a_note_says_so():
    done = decide(verdict(0.6, calibrated=False), Rules(thresholds={Task.prompt_harm: 0.7}))
    assert (done.flagged, "not calibrated" in done.notes["thresholds"]) == (True, True)


def test_inside_the_review_band_the_review_action_is_taken_on_both_sides_of_the_threshold():
    band = {"review": {"prompt_harm": [0.4, 0.8]}}
    assert decided(verdict(0.45), **band) == (True, "flag")
    assert decided(verdict(0.6), **band) == (True, "flag")
    assert decided(verdict(0.8), **band) == (True, "block")
    assert decided(verdict(0.45), **band, review_action="block") == (True, "block")
    assert decide(verdict(0.6), Rules(**band)).notes["review"] is True


def test_actions_flag_without_blocking_or_let_pass():
    assert decided(verdict(0.9), action="flag") == (True, "flag")
    assert decided(verdict(0.9), action="pass") == (False, "pass")


def test_kinds_of_harm_have_actions_and_thresholds_of_their_own():
    kinds = {
        "kinds": [{"match": "Privacy", "action": "flag"}, {"match": "weapon", "thresholds": {"prompt_harm": 0.95}}]
    }
    assert decided(verdict(0.9, harm="a privacy breach"), **kinds) == (True, "flag")
    assert decided(verdict(0.9, harm="weapons"), **kinds) == (False, "pass")
    assert decided(verdict(0.9, harm="fraud"), **kinds) == (True, "block")


@pytest.mark.parametrize("status", ["timeout", "unavailable", "truncated", "unparsed", "refused"])
def test_nothing_unjudged_is_silently_safe(status):
    given = verdict(0.1, status=status)
    closed, opened = decide(given, Rules()), decide(given, Rules(fail_mode="open"))
    assert (closed.flagged, closed.fail_mode, blocks(closed)) == (True, "closed", True)
    assert (opened.flagged, opened.fail_mode, blocks(opened)) == (False, "open", False)


@pytest.mark.parametrize("fail_mode", ["closed", "open"])
@pytest.mark.parametrize(
    ("status", "characters", "held"),
    [("input_too_long", 10, True), ("timeout", LONG + 1, True), ("timeout", LONG, False),
     ("unavailable", 10**6, False), ("overloaded", 10**6, False)],
)  # fmt: skip
def test_who_writes_a_text_cannot_open_the_door_by_its_length(status, characters, held, fail_mode):
    given = verdict(0.1, status=status)
    made = decide(given, Rules(fail_mode=fail_mode), characters)
    assert (blocks(made), made.flagged) == ((held or fail_mode == "closed"),) * 2
    passed = decide(given, Rules(fail_mode="open", too_long="pass"), characters)
    assert (blocks(passed), passed.fail_mode) == (False, "open")
    flagged = decide(given, Rules(fail_mode="open", too_long="flag"), characters)
    assert (blocks(flagged), flagged.flagged) == (False, held)


def test_a_part_that_was_too_long_to_judge_stops_what_was_found_harmless():
    given = verdict(0.1, notes={"unread": "input_too_long"})
    assert blocks(decide(given, Rules(fail_mode="open")))
    assert not blocks(decide(given, Rules(fail_mode="open", too_long="pass")))


@pytest.mark.parametrize(
    ("unsupported", "action", "flagged", "fail_mode"),
    [(None, "flag", True, "open"), ("flag", "flag", True, "open"), ("block", "block", True, "closed"),
     ("pass", "pass", False, "open")],
)  # fmt: skip
@pytest.mark.parametrize("general", ["closed", "open"])
def test_what_the_guard_cannot_read_has_a_rule_of_its_own(unsupported, action, flagged, fail_mode, general):
    more = {} if unsupported is None else {"languages": {"unsupported": unsupported}}
    done = decide(verdict(0.1, 0.1, status="unread"), Rules(fail_mode=general, **more))
    assert (done.notes["action"], done.flagged, done.fail_mode, done.status) == (action, flagged, fail_mode, "unread")
    assert blocks(done, (Task.response_harm,)) is (action == "block")


def test_harm_that_was_found_in_text_that_was_not_read_decides():
    for rules in (Rules(), Rules(languages={"unsupported": "pass"}), Rules(fail_mode="open")):
        done = decide(verdict(0.9, 0.1, status="unread"), rules)
        assert (done.flagged, blocks(done), blocks(done, (Task.response_harm,))) == (True, True, False)
    assert not blocks(decide(verdict(0.9, status="unread"), Rules(shadow=True)))


def test_a_part_that_was_not_judged_is_not_let_through_because_the_harm_beside_it_is_allowed():
    found = replace(verdict(0.9, 0.1), notes={"unread": "timeout"})
    allowed = {"thresholds": {Task.prompt_harm: None}}
    for reply in (Rules(), Rules(**allowed)):
        assert blocks(decide(found, reply), (Task.response_harm,))
    assert not blocks(decide(found, Rules(fail_mode="open", **allowed)))
    assert decided(replace(found, notes={"unread": "unread"}), **allowed) == (True, "flag")


def test_shadow_never_blocks_and_says_what_it_would_have_done():
    for given in (verdict(0.9), verdict(0.1, status="timeout")):
        done = decide(given, Rules(shadow=True))
        assert (done.flagged, blocks(done), done.notes["shadow"]["action"]) == (False, False, "block")
    assert decide(verdict(status="timeout"), Rules(shadow=True)).fail_mode == "open"


def test_a_harmless_reply_is_not_stopped_for_its_request():
    done = decide(verdict(0.9, 0.1), Rules())
    assert blocks(done)
    assert not blocks(done, (Task.refusal, Task.response_harm))
    assert blocks(decide(verdict(0.1, 0.9), Rules()), (Task.response_harm,))
    assert blocks(decide(verdict(0.1, 0.1, status="timeout"), Rules()), (Task.response_harm,))


def test_routes_differ_from_the_rest_only_where_they_say_so():
    policy = policy_of(
        {"deadline_s": 5, "thresholds": {"prompt_harm": 0.7}, "routes": {"proxy": {"fail_mode": "open"}}}
    )
    proxy, judge = policy.rules("proxy"), policy.rules("judge")
    assert (proxy.fail_mode, proxy.deadline_s, proxy.thresholds) == ("open", 5, {Task.prompt_harm: 0.7})
    assert judge.fail_mode == "closed"


def test_a_mode_that_reasons_has_more_time_unless_the_policy_says_how_much():
    usual, short, own = Policy().rules("judge"), policy_of({"mode": "short"}), policy_of({"deadline_s": 3})
    assert [usual.deadline(mode) for mode in (None, "instant", "auto", "short", "full")] == [2, 2, 2, 20, 20]
    assert short.rules("judge").deadline() == 20
    assert {own.rules("judge").deadline(mode) for mode in (None, "auto", "full")} == {3}


def test_the_digest_changes_with_any_part():
    digests = {
        p.digest for p in (Policy(), policy_of({"deadline_s": 3}), policy_of({"routes": {"judge": {"mode": "full"}}}))
    }
    assert len(digests) == 3
    assert Policy().digest == policy_of({}).digest


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        ({"treshold": {}}, UnknownName, "'thresholds'"),
        ({"limits": {"body_byte": 1}}, UnknownName, "'limits.body_bytes'"),
        ({"routes": {"proxy": {"failmode": "open"}}}, UnknownName, "fail_mode"),
        ({"routes": {"prox": {}}}, ConfigError, "routes"),
        ({"fail_mode": "ajar"}, ConfigError, "fail_mode"),
        ({"thresholds": {"prompt_harm": 1.5}}, ConfigError, "between 0 and 1"),
        ({"thresholds": {"harm": 0.5}}, ConfigError, "thresholds"),
        ({"review": {"prompt_harm": [0.8, 0.2]}}, ConfigError, "low < high"),
        ({"routes": {"judge": {"deadline_s": -1}}}, ConfigError, "routes.judge.deadline_s"),
        ({"proxy": {"stride": 500, "span": 400}}, ConfigError, "overlap"),
        ({"version": 2}, ConfigError, "version"),
        ({"kinds": [{"match": "x", "act": "flag"}]}, UnknownName, "action"),
        (["a", "list"], ConfigError, "mapping"),
    ],
)
def test_a_wrong_policy_is_one_sentence_that_names_the_place(data, error, said):
    with pytest.raises(error) as caught:
        policy_of(data)
    assert re.search(re.escape(said), str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_a_policy_is_one_sentence(tmp_path):
    assert read_policy(None) == Policy()
    path = tmp_path / "policy.yaml"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_policy(path)
    path.write_text("a: [1")
    with pytest.raises(ConfigError, match="not YAML"):
        read_policy(path)
    path.write_text("failmode: open")
    with pytest.raises(UnknownName, match=r"policy\.yaml: there is no policy key named 'failmode'"):
        read_policy(path)
    path.write_text("thresholds: {prompt: 0.5}")
    with pytest.raises(UnknownName, match=r"named 'thresholds\.prompt'; did you mean 'thresholds\.prompt_harm'"):
        read_policy(path)
    path.write_text("routes: {judg: {mode: full}}")
    with pytest.raises(ConfigError, match="routes: there is no route named 'judg'; did you mean 'judge'"):
        read_policy(path)
    path.write_text("")
    assert read_policy(path) == Policy()


def test_the_example_of_the_documentation_is_a_policy_and_names_every_key():
    text = (DOCS / "policy.md").read_text()
    blocks_ = re.findall(r"```yaml\n(.*?)```", text, re.S)
    policies = [policy_of(yaml.safe_load(b)) for b in blocks_ if "version:" in b]
    assert policies
    sections = ("limits", "budget", "cache", "proxy", "languages")
    known = {n for model in (Policy, *(type(getattr(Policy(), s)) for s in sections)) for n in model.model_fields}
    missing = [name for name in known if f"`{name}`" not in text]
    assert not missing
    assert all(f"`{route}`" in text for route in ROUTES)
