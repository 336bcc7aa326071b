"""The kinds of harm and the crosswalk to them."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.data.harm_kinds import kind_of, kinds


def test_there_are_fourteen_kinds_and_each_names_known_openai_categories():
    from guardreasoner.serve.wires.moderations import CATEGORIES

    assert len(kinds()) == 14
    assert {c for row in kinds().values() for c in row.openai} <= set(CATEGORIES)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("credit card fraud", "fraud"),
        ("child sexual abuse", "minors"),
        ("Suicide methods", "self-harm"),
        ("explosives", "weapons"),
        ("murder method", "violence"),
        ("drug manufacture", "drugs"),
        ("account hacking", "cyber"),
        ("sexism", "hate"),
        ("sexual coercion", "sexual"),
        ("cyberbullying", "harassment"),
        ("partner surveillance", "privacy"),
        ("shoplifting", "crime"),
        ("Non-violent crimes", "crime"),
        ("vaccine disinformation", "misinformation"),
        ("dangerous medical advice", "advice"),
        ("HATE SPEECH", "hate"),
        ("doxxing of minorities", "hate"),
        ("illegal weapons, minor", "minors"),
        ("exploitation of a minor.", "minors"),
        ("self-hate encouragement", "self-harm"),
        ("body shaming", "harassment"),
        ("financial elder abuse", "fraud"),
        ("supply chain attack", "cyber"),
        ("doctored photos", "misinformation"),
        ("", None),
        (None, None),
    ],
)
def test_names_of_harm_are_read_as_kinds(name, kind):
    assert kind_of(name) == kind


@given(st.text(max_size=60))
def test_reading_a_name_never_fails_and_knows_only_the_kinds(name):
    assert kind_of(name) in {None, *kinds()}


def test_the_words_of_traces_and_everyday_are_covered():
    data = Path(os.environ.get("GUARDREASONER_DATA") or ".")
    if not (data / "traces").is_dir():
        pytest.skip("GUARDREASONER_DATA is unset, or holds no traces")
    names: Counter[str] = Counter()
    for path in (data / "traces" / "traces.jsonl", *sorted((data / "everyday").glob("*.jsonl"))):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            names[row["harm"] if "harm" in row else row["category"]] += 1
    del names[None]
    unread = {name: n for name, n in names.items() if kind_of(name) is None}
    print(f"{len(names)} names, {len(unread)} belong to no kind: {sorted(unread)}")
    assert len(names) > 2000
    assert sum(unread.values()) <= 30
