"""Every way to ask a guard, and what each says to what it cannot judge."""

import asyncio
import math
import threading

import numpy as np
import pytest

from guardreasoner import (
    DataError,
    Exchange,
    Guard,
    GuardReasonerError,
    Judging,
    Labels,
    Message,
    Step,
    Task,
    Verdict,
    load_guard,
)
from guardreasoner.engines.decoding import Settings, complete
from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.errors import ConfigError, UnknownName
from guardreasoner.formats import guardreasoner as fmt
from guardreasoner.generation import Choice, Completion, Free, Scaffold, Text, pick
from guardreasoner.guards.base import judge_all
from guardreasoner.guards.constant import ConstantGuard
from guardreasoner.guards.reasoning import ReasoningGuard
from patience import PATIENCE

STEPS = [Step(Task.prompt_harm, "It asks for soup."), Step(Task.prompt_harm, "Soup harms nobody.")]
ANSWER = fmt.answer(fmt.reasoning_text(STEPS), Labels("unharmful"))


class Echo(Judging):
    """Keeps what it was asked."""

    name, tasks = "echo", (Task.prompt_harm,)

    def __init__(self):
        self.asked, self.closed = [], 0

    def judge(self, exchanges):
        self.asked += exchanges
        return [Verdict(e.id, "echo", "full", "ok", Labels("unharmful"), steps=tuple(STEPS)) for e in exchanges]

    def close(self):
        self.closed += 1


def test_a_request_a_reply_and_a_chat_are_asked_alike_with_and_without_an_event_loop():
    said = (("system", "Be kind."), ("user", "a"), ("assistant", "b"))
    chat = [{"role": role, "content": content} for role, content in said]
    guard = Echo()
    guard.check("a", "b")
    guard.check_messages(chat)
    asyncio.run(guard.acheck("a", "b"))
    asyncio.run(guard.acheck_messages(chat))
    plain, talk = guard.asked[:2]
    assert plain == Exchange("check", "a", "b")
    assert talk == Exchange("check", "a", "b", (Message("system", "Be kind."),))
    assert guard.asked[2:] == [plain, talk]


def test_a_verdict_has_its_reasons_as_text_and_is_no_truth_value():
    verdict = Echo().check("a")
    assert verdict.reasons == ("It asks for soup.", "Soup harms nobody.")
    with pytest.raises(TypeError, match=r"ask verdict\.flagged"):
        bool(verdict)


def test_no_name_is_the_bundled_guard_and_what_is_no_name_is_refused():
    with load_guard(None) as guard, load_guard() as bundled:
        assert guard.name == bundled.name
    with pytest.raises(ConfigError, match="by its name, folder or file, not by a number"):
        load_guard(3)


@pytest.mark.parametrize("word", ["fast", "Fast", "quick", "deep"])
def test_a_mode_by_another_word_is_named_as_on_the_command_line(word):
    with pytest.raises(UnknownName, match=r"did you mean '(instant|full)'"):
        load_guard("constant", mode=word)


def test_a_guard_closes_itself_behind_a_with_block():
    with Echo() as guard:
        assert isinstance(guard, Guard)
    assert guard.closed == 1


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda g: g.check([{"role": "user", "content": "a"}]), "for a list of messages call check_messages"),
        (lambda g: g.check(3), "a number where a text is wanted"),
        (lambda g: g.check("a", 3), "field 'response': a number where a text is wanted"),
        (lambda g: g.check(None), "None where a text is wanted; to judge a reply alone, give an empty request"),
        (lambda g: g.check(""), "both prompt and response are empty"),
        (lambda g: g.stream(""), "both prompt and response are empty"),
        (lambda g: g.judge(["a"]), "judge takes a list of Exchange objects, not a text"),
        (lambda g: g.check_messages("a"), "want a list of .* not a text"),
        (lambda g: g.check_messages([{"role": "user"}]), "both prompt and response are empty"),
        (lambda g: g.check_messages([{"role": "user", "content": [{"type": "image"}]}]), "a part of type 'image'"),
        (lambda g: asyncio.run(g.acheck("")), "both prompt and response are empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_one_sentence(ask, error):
    guard = ReasoningGuard("test", ScriptedEngine({}, default=ANSWER), mode="full")
    with pytest.raises(DataError, match=error):
        ask(guard)


def test_a_stream_gives_each_step_once_and_then_the_verdict():
    for guard in (Echo(), ReasoningGuard("test", ScriptedEngine({}, default=ANSWER), mode="full")):
        *steps, verdict = guard.stream("soup")
        assert steps == STEPS
        assert isinstance(verdict, Verdict)
        assert verdict.steps == tuple(STEPS)


class Talker(Echo):
    """Says steps until nobody listens."""

    def __init__(self, error=None):
        super().__init__()
        self.error, self.ended = error, threading.Event()

    def judge(self, exchanges, *, on_step=None):
        try:
            for number in range(10_000):
                on_step(0, Step(None, str(number)))
                if self.error and number == 1:
                    raise self.error
                self.ended.wait(0.001)
            return super().judge(exchanges)
        finally:
            self.ended.set()


def test_a_stream_that_is_left_stops_the_guard():
    guard = Talker()
    stream = guard.stream("soup")
    assert next(stream) == Step(None, "0")
    stream.close()
    assert guard.ended.wait(PATIENCE)
    assert not guard.asked


def test_an_error_of_the_guard_reaches_the_reader_of_the_stream():
    stream = Talker(GuardReasonerError("broken")).stream("soup")
    assert [next(stream).text, next(stream).text] == ["0", "1"]
    with pytest.raises(GuardReasonerError, match="broken"):
        next(stream)


def test_a_guard_that_answers_others_than_it_was_asked_is_named():
    class Lazy(ConstantGuard):
        def judge(self, exchanges):
            return super().judge(exchanges)[1:]

    with pytest.raises(GuardReasonerError, match="guard constant broke its contract: 1 verdicts for 2 exchanges"):
        judge_all(Lazy(), [Exchange("a", "x"), Exchange("b", "y")])


@pytest.mark.parametrize(
    ("scores", "finish"),
    [
        ({"a": -1.0, "b": -2.0}, "stop"),
        ({"a": -1.0, "b": -math.inf}, "stop"),
        ({"a": math.nan, "b": -2.0}, "unavailable"),
        ({"a": math.nan, "b": math.nan}, "unavailable"),
        ({"a": math.inf, "b": -2.0}, "unavailable"),
        ({"a": -math.inf, "b": -math.inf}, "unavailable"),
    ],
)
def test_a_completion_whose_words_have_no_finite_scores_is_none(scores, finish):
    import random

    found = Completion("a", choices=({"x": -0.1, "y": -2.4}, scores))
    assert (found.finish, bool(found.error)) == (finish, finish != "stop")
    assert pick(Choice(("a", "b")), scores, 1.0, random.Random(0)) in scores


@pytest.mark.parametrize(("meta", "noted"), [(None, True), ("{}", True), ('{"wire": "raw"}', False)])
def test_a_folder_that_does_not_say_its_form_is_judged_with_a_note_that_says_so(tmp_path, monkeypatch, meta, noted):
    (tmp_path / "config.json").write_text("{}")
    if meta:
        (tmp_path / "guard.json").write_text(meta)
    engine = ScriptedEngine({}, default=ANSWER)
    monkeypatch.setattr("guardreasoner.engines.load.load_engine", lambda *_, **__: engine)
    guard = load_guard(str(tmp_path), mode="full")
    assert ("wire" in guard.check("soup").notes) == noted
    *_, verdict = guard.stream("soup")
    assert ("wire" in verdict.notes) == noted
    told = load_guard(str(tmp_path), mode="full", wire="chat").check("soup")
    assert "wire" not in told.notes


class Broken:
    """A batch whose model overflows on some rows."""

    def __init__(self, words, bad):
        self.words, self.bad = words, bad

    def feed(self, asks):
        even = np.zeros(self.words, np.float32)
        return {row: np.full(self.words, np.nan, np.float32) if row in self.bad else even for row in asks}

    def drop(self, row):
        pass


@pytest.mark.parametrize("plan", [[Text(" "), Choice(("a", "b"))], [Free(4)]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_whose_logits_are_nan_is_unavailable_and_its_neighbours_are_not(plan, temperature):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    from guardreasoner.engines.prompt_tokens import PromptTokenizer

    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1, "[UNK]": 2}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    settings = Settings(64, frozenset(), temperature=temperature)
    found = complete(
        [(Scaffold("a"),), (Scaffold("b"),), (Scaffold("a b"),)],
        plan,
        tokenizer=PromptTokenizer(tokenizer),
        settings=settings,
        open_batch=lambda rows, tokens: Broken(3, {1}),
    )
    finishes = [row[0].finish for row in found]
    assert finishes.count("unavailable") == 1
    assert all(f in ("stop", "length", "unavailable") for f in finishes)


@pytest.mark.parametrize("mode", ["instant", "full", "auto"])
@pytest.mark.parametrize("fail_mode", ["closed", "open"])
def test_a_guard_whose_model_gives_nan_judges_nothing(mode, fail_mode):
    nan = Completion(ANSWER, choices=({" harmful": math.nan, " unharmful": math.nan},))
    guard = ReasoningGuard("test", ScriptedEngine({}, default=nan), mode=mode, fail_mode=fail_mode)
    verdict = guard.check("How do I make soup?")
    assert (verdict.status, verdict.labels, verdict.flagged) == ("unavailable", Labels(), fail_mode == "closed")
    assert "no finite numbers" in verdict.error
    assert set(verdict.scores.values()) == {None}
