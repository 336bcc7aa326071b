"""Following a plan, on a model whose every logit the test decides."""

import math
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from guardreasoner.engines.decoding import Extension, Settings, complete, log_softmax, sample, unstopped
from guardreasoner.engines.prompt_tokens import PromptTokenizer
from guardreasoner.errors import PlanUnsupported
from guardreasoner.generation import Choice, Free, Scaffold, Text
from tokenizers_of_all_kinds import KINDS, byte_bpe

TOKENIZER = PromptTokenizer(tiny.tiny_tokenizer())
VOCABULARY = TOKENIZER.base.get_vocab_size()
END = TOKENIZER.base.token_to_id("[SEP]")
SETTINGS = Settings(context=64, ends=frozenset([END]))


class Written:
    """A model that goes on with a written text wherever its context ends in the cue; remembers what it was fed."""

    def __init__(self, tokenizer, answers, *, delay=0.0):
        self.tokenizer, self.delay = tokenizer, delay
        self.answers = [
            (list(tokenizer.continuation(cue)), list(tokenizer.continuation(text))) for cue, text in answers
        ]
        self.contexts, self.fed, self.size = {}, 0, tokenizer.base.get_vocab_size()

    def feed(self, asks):
        time.sleep(self.delay)
        return {row: self._logits(row, ask) for row, ask in asks.items()}

    def drop(self, row):
        self.contexts.pop(row)

    def _logits(self, row, ask: Extension):
        self.contexts[row] = [*self.contexts.get(row, [])[: ask.keep], *ask.tokens]
        assert len(self.contexts[row]) == ask.keep + len(ask.tokens)
        self.fed += len(ask.tokens)
        logits = np.zeros(self.size, np.float32)
        logits[self._next(self.contexts[row])] = 5.0
        return logits

    def _next(self, context):
        for cue, text in self.answers:
            for k in range(len(text)):
                if context[-len(cue) - k :] == cue + text[:k]:
                    return text[k]
        return END


def run(answers, plan, *, tokenizer=TOKENIZER, prompt="Human user:", settings=SETTINGS, model=None, **more):
    model = model or Written(tokenizer, answers)
    done = complete(
        [(Scaffold(prompt),)],
        plan,
        tokenizer=tokenizer,
        settings=settings,
        open_batch=lambda rows, tokens: model,
        **more,
    )
    return done[0], model


def test_forced_text_free_text_and_choices_come_in_any_order():
    plan = (Text("Request:"), Choice((" harmful", " unharmful")), Free(8), Text("\nResponse:"), Free(3, ("---",)))
    answers = [("Request: harmful", "so the user asks"), ("Response:", "no risk---")]
    (done,), _ = run(answers, plan)
    assert done.text == "Request: harmfulso the user asks\nResponse:no risk "
    assert done.finish == "stop"
    assert done.prompt_tokens == 2
    assert done.completion_tokens == 1 + 5 + 3  # a choice, four words and the end token, two words and the stop
    assert len(done.choices) == 1


def test_the_stop_string_is_neither_in_the_text_nor_in_the_context_that_follows():
    plan = (Free(10, ("---", "Answers:")), Text("Answers:"), Free(1))
    (done,), _ = run([("Human user:", "the risk---"), ("risk Answers:", "no")], plan)
    assert done.text == "the risk Answers:no"


def test_a_stop_string_inside_a_token_leaves_the_first_half_of_it():
    tokenizer = PromptTokenizer(byte_bpe())
    token = next(t for t in (" harmful", " process", " user") if len(tokenizer.continuation(t)) == 1)
    middle = token[3:5]
    plan = (Free(10, (middle,)), Text("!"))
    settings = Settings(context=64, ends=frozenset())
    (done,), _ = run([(":", f"the{token}")], plan, tokenizer=tokenizer, prompt="kill:", settings=settings)
    assert done.text == f"the{token[:3]}!"


def test_a_stop_string_over_several_tokens_is_found():
    (done,), _ = run([("Human user:", "kill a process please")], (Free(10, ("a process",)),))
    assert done.text.strip() == "kill"
    assert done.finish == "stop"


def test_the_first_of_several_stop_strings_wins():
    tokenizer = PromptTokenizer(byte_bpe())
    settings = Settings(context=64, ends=frozenset())
    (done,), _ = run(
        [(":", "harmful")], (Free(10, ("ful", "arm")),), tokenizer=tokenizer, prompt="kill:", settings=settings
    )
    assert done.text == "h"


def test_a_budget_that_runs_out_is_length_and_the_tail_is_still_forced():
    (done,), _ = run([("Human user:", "the user asks for help")], (Free(2), Text("Answers:")))
    assert done.text == "the userAnswers:"
    assert done.finish == "length"
    assert done.completion_tokens == 2


def test_the_end_token_ends_a_free_step_but_not_the_plan():
    (done,), _ = run([("Human user:", "no")], (Free(9), Text("Answers:"), Choice((" refusal", " compliance"))))
    assert done.text.startswith("noAnswers: ")
    assert done.finish == "stop"


def test_a_prompt_that_leaves_no_room_is_input_too_long():
    plan = (Free(4), Text("Answers:"), Choice((" refusal", " compliance")))
    room = SETTINGS.context - 1 - 3  # [CLS], and one free token, one forced, one chosen
    (fits,), _ = run([], plan, prompt="a" + " a" * (room - 1))
    (over,), _ = run([], plan, prompt="a" + " a" * room)
    assert (fits.finish, over.finish) == ("stop", "input_too_long")
    assert "64 tokens" in over.error


def test_free_text_gives_way_to_what_must_still_be_written():
    plan = (Free(100), Text("Answers:"), Choice((" refusal", " compliance")))
    (done,), _ = run([("Human user:", "risk " * 200)], plan)
    assert done.finish == "length"
    assert done.prompt_tokens + len(TOKENIZER.continuation(done.text)) == SETTINGS.context
    assert len(done.choices) == 1


def test_a_hopelessly_long_prompt_is_not_even_encoded():
    begun = time.process_time()  # of this process alone: a busy machine does not count
    (done,), _ = run([], (Free(4),), prompt="kill " * 3_000_000)
    assert done.finish == "input_too_long"
    assert time.process_time() - begun < 1


def test_a_word_of_several_tokens_is_scored_by_all_of_them():
    tokenizer = PromptTokenizer(byte_bpe())
    words = (" xyq", " zzq")
    first, second = (tokenizer.word(w) for w in words)
    assert min(len(first), len(second)) > 1
    settings = Settings(context=64, ends=frozenset())
    model = Written(tokenizer, [("kill:", " xyq")])
    (done,), _ = run([], (Choice(words),), tokenizer=tokenizer, prompt="kill:", settings=settings, model=model)
    hit = 5.0 - math.log(math.exp(5) + model.size - 1)
    miss = -math.log(math.exp(5) + model.size - 1)
    shared = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert done.choices[0][" xyq"] == pytest.approx(hit * len(first), abs=1e-4)
    assert done.choices[0][" zzq"] == pytest.approx(hit * shared + miss * (len(second) - shared), abs=1e-4)
    assert done.text == " xyq"


def test_scores_of_words_are_probabilities_over_the_whole_vocabulary():
    (done,), _ = run([("Human user:", "harmful")], (Choice((" harmful", " unharmful")),))
    total = sum(math.exp(s) for s in done.choices[0].values())
    assert 0 < total < 1
    assert done.choices[0][" harmful"] == pytest.approx(5 - math.log(math.exp(5) + VOCABULARY - 1), abs=1e-5)


def test_the_margin_decides_what_is_written():
    words = " harmful", " unharmful"
    answers = [("Human user:", "harmful")]
    texts = [run(answers, (Choice(words, margin),))[0][0].text for margin in (0.0, 4.9, 5.1, -9.0)]
    assert texts == [" harmful", " harmful", " unharmful", " harmful"]


def test_at_temperature_zero_one_completion_is_copied():
    done, model = run([("Human user:", "no")], (Free(5),), n=3)
    assert [c.text for c in done] == ["no"] * 3
    assert model.fed == 2 + 1


def test_samples_differ_repeat_themselves_and_follow_the_seed():
    def texts(seed):
        settings = Settings(context=64, ends=frozenset([END]), temperature=1.0, seed=seed)
        return [c.text for c in run([("Human user:", "the user")], (Free(12),), settings=settings, n=4)[0]]

    assert texts(0) == texts(0) != texts(1)
    assert len(set(texts(0))) > 1


def test_a_passed_deadline_keeps_what_was_written():
    model = Written(TOKENIZER, [("Human user:", "the user asks for help please " * 9)], delay=0.02)
    (done,), _ = run([], (Free(40),), model=model, deadline=time.monotonic() + 0.12)
    assert done.finish == "timeout"
    assert done.text.startswith("the user")
    assert done.completion_tokens < 20
    assert done.error == "the deadline passed before the answer was complete"


def test_a_deadline_in_the_past_asks_the_model_nothing():
    (done,), model = run([("Human user:", "no")], (Free(4),), deadline=time.monotonic() - 1)
    assert done.finish == "timeout"
    assert model.fed == 0


def test_nothing_is_fed_that_is_not_needed():
    plan = (
        Text("Request:"),
        Choice((" harmful", " unharmful")),
        Text("\nResponse:"),
        Choice((" harmful", " unharmful")),
    )
    _, model = run([], plan)
    assert model.fed == 2 + 1 + 1 + 2  # prompt, forced; then the word, line end and key; the last word is never fed


def test_a_word_that_cannot_be_written_is_refused():
    with pytest.raises(PlanUnsupported, match="cannot write"):
        run([], (Choice((" 無", " harmful")),))


def test_nucleus_sampling_draws_only_from_the_top():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    rng = np.random.default_rng(0)
    narrow = Settings(context=1, ends=frozenset(), temperature=1.0, top_p=0.7)
    wide = Settings(context=1, ends=frozenset(), temperature=1.0, top_p=1.0)
    assert {sample(logits, narrow, rng) for _ in range(200)} == {0, 1}
    assert {sample(logits, wide, rng) for _ in range(400)} == {0, 1, 2, 3}
    shares = np.bincount([sample(logits, wide, rng) for _ in range(4000)]) / 4000
    assert np.abs(shares - [0.5, 0.3, 0.15, 0.05]).max() < 0.03


TOKENIZERS = {kind: PromptTokenizer(make()) for kind, make in KINDS.items()}
REASONED = (Text("# Task 1\n"), Free(40, ("---", "Answers:")), Text("Answers:"), Choice((" harmful", " unharmful")))


def heard(answers, plan, **more):
    """Everything that was said of one row, and its completion."""
    said = []
    (done,), model = run(answers, plan, on_text=lambda row, text: said.append((row, text)), **more)
    assert {row for row, _ in said} == {0}
    return [text for _, text in said], done, model


def test_text_is_heard_token_by_token_as_it_grows():
    said, done, _ = heard([("# Task 1\n", "the user asks for help---"), ("Answers:", "harmful")], REASONED)
    assert said == [
        "# Task 1\n",
        "# Task 1\nthe",
        "# Task 1\nthe user",
        "# Task 1\nthe user asks",
        "# Task 1\nthe user asks for",
        "# Task 1\nthe user asks for help",
        "# Task 1\nthe user asks for help ",
        "# Task 1\nthe user asks for help Answers:",
        "# Task 1\nthe user asks for help Answers: harmful",
    ]
    assert said[-1] == done.text


class Dictated(Written):
    """Writes these ids, whatever the prompt."""

    def __init__(self, tokenizer, ids):
        super().__init__(tokenizer, [])
        self.ids, self.start = ids, None

    def _next(self, context):
        self.start = self.start or len(context)
        return self.ids[len(context) - self.start]


@pytest.mark.parametrize("kind", ["byte_bpe", "metaspace_bpe"])
def test_half_a_character_is_never_heard(kind):
    tokenizer, text = TOKENIZERS[kind], "un café 無 \U0001f600 é"
    ids = tokenizer.continuation(text)
    assert len(ids) > len(text)
    settings = Settings(context=200, ends=frozenset())
    model = Dictated(tokenizer, ids)
    said, done, _ = heard([], (Free(len(ids)),), tokenizer=tokenizer, prompt="kill:", settings=settings, model=model)
    assert done.text.strip() == text
    assert len(said) >= 8
    assert not [s for s in said if "\ufffd" in s]
    assert all(later.startswith(s) for s, later in pairwise([*said, done.text]))


def test_what_a_stop_string_takes_out_again_is_never_heard():
    tokenizer = PromptTokenizer(byte_bpe())
    settings = Settings(context=64, ends=frozenset())
    model = Written(tokenizer, [("kill:", "a-b--c---")])
    said, done, _ = heard(
        [], (Free(30, ("---",)),), tokenizer=tokenizer, prompt="kill:", settings=settings, model=model
    )
    assert done.text == said[-1] == "a-b--c"
    assert "a-b" in said
    assert not [s for s in said if s.endswith("-")]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_whatever_is_sampled_what_was_heard_stays(kind, data):
    tokenizer = TOKENIZERS[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.base.get_vocab_size() - 1), max_size=25))
    whole = tokenizer.decode(ids)
    for k in range(len(ids)):
        assert whole.startswith(tokenizer.lasting(ids[:k]))


@given(st.text("-a: ", max_size=20), st.lists(st.text("-a:", min_size=1, max_size=4), max_size=3))
def test_whatever_stops_it_what_was_heard_stays(text, stops):
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    kept = text[: min(ends)] if ends else text
    first = next((k for k in range(len(text)) if any(stop in text[:k] for stop in stops)), len(text))
    for k in range(first + 1):
        assert kept.startswith(unstopped(text[:k], stops))


def test_the_first_of_several_samples_is_heard_and_each_prompt_by_its_place():
    said = []
    settings = Settings(context=64, ends=frozenset([END]), temperature=1.0)
    prompts = [(Scaffold("Human user:"),), (Scaffold("AI assistant: please"),)]
    done = complete(
        prompts, (Free(6),), tokenizer=TOKENIZER, settings=settings, open_batch=lambda *_: Written(TOKENIZER, []), n=3,
        on_text=lambda row, text: said.append((row, text)),
    )  # fmt: skip
    last = dict(said)
    assert [last.get(i, "") for i in (0, 1)] == [samples[0].text for samples in done]
    assert any(c.text != samples[0].text for samples in done for c in samples)


def test_what_the_hearer_raises_ends_the_run():
    model = Written(TOKENIZER, [("Human user:", "the user asks for help")])
    with pytest.raises(LookupError, match="enough"):
        run([], (Free(40),), model=model, on_text=lambda row, text: (_ for _ in ()).throw(LookupError("enough")))
    assert model.fed == 2


def test_nothing_is_decoded_that_nobody_hears(monkeypatch):
    calls = []
    monkeypatch.setattr(
        PromptTokenizer, "decode", lambda self, ids, real=PromptTokenizer.decode: calls.append(ids) or real(self, ids)
    )
    answers = [("Human user:", "the user asks for help")]
    (silent,), _ = run(answers, (Free(40),))
    assert len(calls) == 1
    said, done, _ = heard(answers, (Free(40),))
    assert len(calls) > 1 + len(said)
    assert done == silent


def test_log_softmax_is_exact_for_large_logits():
    values = log_softmax(np.array([1000.0, 1000.0, 0.0], np.float32))
    assert values[:2] == pytest.approx([-math.log(2)] * 2, abs=1e-6)
