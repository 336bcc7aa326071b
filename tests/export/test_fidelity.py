"""What an export costs in verdicts, by hand-worked numbers."""

import pytest

pytest.importorskip("sklearn", reason="the eval extra is not installed")

from guardreasoner.errors import DataError, EngineError
from guardreasoner.export import fidelity
from guardreasoner.types import Example, Exchange, Labels, Verdict

ROWS = [Example(Exchange(str(i), "x"), Labels("harmful" if i % 2 else "unharmful")) for i in range(4)]


def verdicts(*scores):
    return [
        Verdict(str(i), "g", "instant", "ok", Labels("harmful" if p >= 0.5 else "unharmful"),
                {"prompt_harm": p, "refusal": None, "response_harm": None})
        for i, p in enumerate(scores)
    ]  # fmt: skip


def test_labels_that_differ_and_ranking_that_is_lost_are_counted():
    made = fidelity.measure(ROWS, verdicts(0.1, 0.9, 0.2, 0.8), verdicts(0.6, 0.9, 0.2, 0.55))
    assert (made.rows, made.labels, made.differing) == (4, 4, 1)
    assert made.auroc_lost == {"prompt_harm": pytest.approx(0.25)}  # of four pairs one is turned round


def test_nothing_to_compare_on_is_no_agreement():
    with pytest.raises(DataError, match="no validation row to compare the export on"):
        fidelity.compare("float", "small", [], wire="raw", rows=4, mode="instant")


@pytest.mark.parametrize(("scores", "words"), [((0.6, 0.9, 0.2, 0.8), "1 of 4 labels"), ((0.45, 0.9, 0.2, 0.8), None)])
def test_an_export_that_gives_other_labels_is_refused(monkeypatch, scores, words):
    made = {"float": verdicts(0.1, 0.9, 0.2, 0.8), "small": verdicts(*scores)}

    class Guard:
        def __init__(self, name, engine, **_):
            self.judge = lambda exchanges: made[engine]
            self.close = lambda: None

    monkeypatch.setattr(fidelity, "ReasoningGuard", Guard)
    monkeypatch.setattr(fidelity, "load_engine", lambda kind, model: model)
    if words is None:
        assert fidelity.compare("float", "small", ROWS, wire="raw", rows=4, mode="instant").differing == 0
    else:
        with pytest.raises(EngineError, match=words):
            fidelity.compare("float", "small", ROWS, wire="raw", rows=4, mode="instant")
