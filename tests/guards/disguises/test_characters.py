"""Characters that hide or forge letters are seen through, and honest text is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.guards.disguises.characters import normalise, revealed


@pytest.mark.parametrize(
    ("hidden", "plain"),
    [
        ("b\u200bo\u200dmb", "bomb"),
        ("\u202ebomb\u202c", "bomb"),
        ("ｂｏｍｂ", "bomb"),
        ("b\u043emb", "bomb"),
        ("𝐛𝐨𝐦𝐛", "bomb"),
        ("bo\u00admb", "bomb"),
        ("привет", "привет"),
        ("καλημέρα", "καλημέρα"),
        ("naïve café", "naïve café"),
    ],
)
def test_hidden_text_is_brought_to_light_and_honest_text_is_left_alone(hidden, plain):
    assert normalise(hidden) == plain
    assert revealed(hidden) == plain


def test_typography_alone_is_not_judged_twice():
    text = "wait\u00a0here… “quoted” — really"
    assert revealed(text) == text


@given(st.text())
def test_normalising_twice_changes_nothing_more_than_once(text):
    once = normalise(text)
    assert normalise(normalise(once)) == normalise(once)
