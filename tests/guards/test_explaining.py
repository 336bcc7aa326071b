"""A guard that decides first: the instant verdict stands, and only reasoning that supports it is shown."""

from guardreasoner.engines.base import Capabilities
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.guards.explaining import Explaining
from guardreasoner.guards.reasoning import ReasoningGuard
from guardreasoner.plans import Choice, Completion, segments_of
from guardreasoner.types import Exchange, Step, Task


def text_of(**conclusions):
    """A reasoning that ends each named task on a word."""
    return wire_format.reasoning_text([Step(Task(t), f"It is plain, so it is {w}.") for t, w in conclusions.items()])


FIRST = Explaining().temperature


class Writer:
    """Says P(positive) = 0.9 to everything that holds `bad`, and writes the given texts."""

    name = "writer"
    capabilities = Capabilities(force=True, logprobs=True, context_tokens=512, keeps_deadline=True)

    def __init__(self, first, more=(), finish="stop"):
        self.first, self.more, self.finish = first, tuple(more), finish
        self.asked = []

    def run(self, prompts, plan, *, deadline=None, n=1, temperature=0.0):
        choices = [s for s in plan if isinstance(s, Choice)]
        self.asked.append((len(prompts), len(choices), n, temperature))
        return [self._row(prompt, choices, again=temperature > FIRST) for prompt in prompts]

    def _row(self, prompt, choices, again):
        if choices:
            bad = "bad" in "".join(s.text for s in segments_of(prompt))
            words = [c.words[0] if bad else c.words[1] for c in choices]
            keys = ("Request", "Completion", "Response")[: len(words)]
            block = "Answers: \n" + "\n".join(f"{k}:{w}" for k, w in zip(keys, words, strict=True))
            scores = tuple({c.words[0]: -0.1 if bad else -2.4, c.words[1]: -2.4 if bad else -0.1} for c in choices)
            return [Completion(block, choices=scores, completion_tokens=len(choices))]
        texts = list(self.more) if again else [self.first]
        return [Completion(t, self.finish, completion_tokens=5) for t in texts]

    def offsets(self, text):
        return [(i, i + 1) for i in range(len(text))]

    def close(self):
        return None


def judge(writer, mode="full", prompt="bad", response=None, **how):
    guard = ReasoningGuard("g", writer, wire="compact", explaining=Explaining(**how))
    return guard.judge([Exchange("1", prompt, response)], mode=mode)[0]


def test_the_decision_is_that_of_instant_and_the_steps_support_it():
    writer = Writer(text_of(prompt_harm="harmful"))
    alone = judge(writer, "instant")
    verdict = judge(writer)
    assert (verdict.labels, verdict.scores, verdict.mode) == (alone.labels, alone.scores, "full")
    assert [s.text for s in verdict.steps] == ["It is plain, so it is harmful."]
    assert wire_format.parse(verdict.text).labels == verdict.labels
    assert wire_format.parse(verdict.text).steps == verdict.steps
    assert "unexplained" not in verdict.notes
    assert verdict.usage.passes == 2


def test_reasoning_for_another_verdict_is_tried_again_and_never_shown():
    writer = Writer(text_of(prompt_harm="unharmful"), [text_of(prompt_harm=w) for w in ("unharmful", "harmful")])
    verdict = judge(writer, tries=2, retry_temperature=0.9)
    assert [s.text for s in verdict.steps] == ["It is plain, so it is harmful."]
    assert writer.asked[-1] == (1, 0, 2, 0.9)
    stubborn = Writer(text_of(prompt_harm="unharmful"), [text_of(prompt_harm="unharmful")] * 2)
    verdict = judge(stubborn, tries=2)
    assert verdict.labels.prompt_harm == "harmful"
    assert verdict.steps == ()
    assert verdict.notes["unexplained"] == ["prompt_harm"]
    assert wire_format.parse(verdict.text).labels == verdict.labels


def test_only_the_tasks_that_lack_support_are_tried_again_and_each_keeps_its_own_steps():
    first = text_of(prompt_harm="harmful", refusal="compliance", response_harm="harmful")
    writer = Writer(first, [text_of(refusal="refusal")])
    verdict = judge(writer, response="bad too", tries=1)
    assert [(s.task, s.text.rsplit(" ", 1)[1]) for s in verdict.steps] == [
        (Task.prompt_harm, "harmful."),
        (Task.refusal, "refusal."),
        (Task.response_harm, "harmful."),
    ]
    assert "unexplained" not in verdict.notes


def test_auto_writes_nothing_and_a_lost_explanation_keeps_the_verdict():
    writer = Writer(text_of(prompt_harm="harmful"))
    verdict = judge(writer, "auto")
    assert (verdict.mode, verdict.steps, len(writer.asked)) == ("instant", (), 1)
    late = judge(Writer("", finish="timeout"))
    assert (late.status, late.labels.prompt_harm) == ("ok", "harmful")
    assert late.notes["reasoning_failed"] == "timeout"


def test_the_kind_of_harm_is_that_of_a_supporting_text():
    def with_kind(kind, word):
        step = Step(Task.prompt_harm, f"The kind of harm is {kind}. It is {word}.")
        return wire_format.reasoning_text([step])

    assert judge(Writer(with_kind("fraud", "harmful"))).harm == "fraud"
    other = Writer(with_kind("fraud", "unharmful"), [with_kind("theft", "harmful")])
    assert judge(other, tries=1).harm == "theft"
