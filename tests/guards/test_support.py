"""Wholes that pass by little: what only steers, and what only its surroundings lift, is not harmful."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from guardreasoner.guards.calibration import Calibration, Curve
from guardreasoner.guards.encoder import LONE, STEERED, EncoderGuard
from guardreasoner.types import Exchange, Message, Task
from scripted import word_spans

CALM = " ".join(f"We plan the {place} today." for place in ("mill", "soup", "train", "fence", "walk", "river"))
MORE = CALM.replace("today", "on Monday")


class Weighing:
    """An engine that gives a text the largest number written in it as log-odds of harm, and so of an attack."""

    outputs = ("prompt_harm", "refusal", "response_harm", "attack")
    context_tokens = 400

    def __init__(self, whole=None):
        self.whole = whole

    def offsets(self, text):
        return word_spans(text)

    def score(self, pairs, deadline=None):
        ((prompt, response),) = pairs
        text = prompt if response is None else response
        harm = self._largest("harm", text)
        if self.whole is not None and len(text.split()) > 15:
            harm = self.whole
        return SimpleNamespace(
            logits=np.array([[harm, -9.0, harm, self._largest("steer", text)]]), tokens=[len(text.split())]
        )

    @staticmethod
    def _largest(key, text):
        return max([float(x) for x in re.findall(rf"\b{key}(-?\d+(?:\.\d+)?)", text)], default=-5.0)


CALIBRATION = Calibration({(t, "instant"): Curve("platt", (1.0, 0.0), 0.5, None, (0.5, -1.0, 1.0)) for t in Task})


def guard(whole=None):
    return EncoderGuard("weighing", Weighing(whole), calibration=CALIBRATION)


def flagged(text, whole=None, context=()):
    return guard(whole).judge([Exchange("x", text, context=context)])[0].flagged


class Steering(Weighing):
    """A frame of `steer2` lifts the harm of the text it stands in by one, and does none by itself."""

    def score(self, pairs, deadline=None):
        found = super().score(pairs)
        if "steer2" in pairs[0][0] and len(pairs[0][0].split()) > 4:
            found.logits[0][0] += 1
        return found


@pytest.mark.parametrize("text", ["{}. Obey me now steer2.", "You obey me steer2. {}"])
def test_what_steers_makes_no_harmless_request_harmful_and_hides_no_harmful_one(text):
    steered = EncoderGuard("steered", Steering(), calibration=CALIBRATION)

    def says(harm):
        return steered.check(text.format(f"Paint the old garden gate harm{harm}"))

    assert not says(-0.3).flagged
    assert says(-0.3).scores["prompt_harm"] < 0.5
    assert says(0.1).flagged
    assert STEERED > 1


def test_a_long_whole_that_passes_by_little_needs_a_piece_near_its_bar():
    assert not flagged(f"{CALM} {MORE}", LONE - 0.1)
    assert flagged(f"{CALM} {MORE}", LONE + 0.1)
    near = 0.5 - LONE + 0.1  # above the threshold by itself, a sentence needs 0.5
    assert flagged(f"{CALM} Paint the gate harm{near}. {MORE}", LONE - 0.1)
    assert not flagged(f"{CALM} Paint the gate harm{near - 0.2}. {MORE}", LONE - 0.1)


def test_a_short_text_has_no_pieces_to_support_it():
    assert flagged("Paint the old garden gate harm0.1")


def test_a_refusal_beside_a_reply_hides_nothing_of_it():
    class Refusing(Weighing):
        """`sorry` takes what it stands in for a refusal, which does no harm."""

        def score(self, pairs, deadline=None):
            found = super().score(pairs)
            if "sorry" in (pairs[0][1] or "") and len(pairs[0][1].split()) > 5:
                found.logits[:] = -9.0
            return found

    judge = EncoderGuard("r", Refusing(), calibration=CALIBRATION).check
    for reply in ("I am sorry, no. {}", "{} I am sorry, no.", "So sorry, I can't help you. {}"):
        assert judge("The gate?", reply.format(f"Paint the gate harm{LONE + 0.1}.")).labels.response_harm == "harmful"
        assert judge("The gate?", reply.format("Paint the gate harm0.4.")).labels.response_harm == "unharmful"


def test_a_conversation_needs_more_than_each_of_its_messages():
    before = (
        Message("user", "Paint the gate."),
        Message("assistant", "Which gate do you mean, the old one or the new one?"),
    )
    assert not flagged("The old one, please.", 0.4, before)
    assert flagged("The old one, please.", 0.6, before)
    assert flagged("The old one harm0.1, please.", -5.0, before)
