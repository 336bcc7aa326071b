"""Quotations can only be made of words of the prompt."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.engines.grounding import Quotes, only, parts

OPEN, CLOSE, BAR = 90, 91, 92
ids = st.lists(st.integers(0, 6), min_size=1, max_size=30)


@given(ids, st.randoms(use_true_random=False))
def test_whatever_is_chosen_the_quotation_is_a_span_of_the_prompt_made_of_whole_words(prompt, rng):
    inside = {0, 1}  # these go on with a word
    quotes = Quotes(prompt, mark=(OPEN, CLOSE), inside=inside, starts={5, 6})
    written = [5, OPEN]
    for _ in range(200):
        allowed = quotes.allowed(written)
        if allowed is None:  # nothing in the prompt begins a word
            assert not [i for i in prompt if i not in inside]
            return
        written.append(rng.choice(allowed))
        if written[-1] == CLOSE:
            break
    quoted = written[2:-1]
    assert written[-1] == CLOSE
    assert quoted
    places = [k for k in range(len(prompt)) if prompt[k : k + len(quoted)] == quoted]
    assert places
    assert quoted[0] not in inside
    assert quoted[0] in (5, 6) or not {5, 6} & set(prompt)
    ends = [k + len(quoted) for k in places]
    assert any(e == len(prompt) or prompt[e] not in inside for e in ends)


def test_outside_a_quotation_anything_goes():
    quotes = Quotes([1, 2], mark=(OPEN, CLOSE), inside=set(), starts=set())
    assert quotes.allowed([]) is None
    assert quotes.allowed([OPEN, 1, CLOSE, 7]) is None


def test_a_prompt_without_words_leaves_the_quotation_free():
    quotes = Quotes([], mark=(OPEN, CLOSE), inside=set(), starts=set())
    assert quotes.allowed([OPEN]) is None


def test_masked_logits_keep_the_scores_of_what_is_allowed():
    masked = only(np.array([1.0, 2.0, 3.0], np.float32), [0, 1])
    assert masked.argmax() == 1
    assert masked[2] == -np.inf


def test_request_and_reply_are_the_first_and_the_last_run_between_markers():
    assert parts([BAR, BAR, 1, 2, BAR, 3, BAR], {BAR}) == [[1, 2], [3]]
    assert parts([BAR], {BAR}) == []
