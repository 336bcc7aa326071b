"""The vLLM engine against a stand-in with vLLM's interface: what it is asked, and how its answers are read."""

import math
import sys
import time
from types import SimpleNamespace
from typing import ClassVar

import pytest

import tiny
from guardreasoner.engines.base import Engine
from guardreasoner.engines.load import load_engine
from guardreasoner.errors import EngineError, MissingDependency
from guardreasoner.formats import guardreasoner as ours
from guardreasoner.generation import Choice, Free, Judged, Scaffold, Text
from guardreasoner.types import Task
from tokenizers_of_all_kinds import byte_bpe

TOKENIZER = tiny.tiny_tokenizer()
END = TOKENIZER.token_to_id("[SEP]")


class SamplingParams:
    def __init__(self, **given):
        self.given = {"logprobs": None, "prompt_logprobs": None, "stop": [], **given}


class LLM:
    """Goes on with `answers[cue]` where the context ends in the cue; every other token has 1/1000."""

    answers: ClassVar[dict[str, str]] = {"Human user:": "the user asks---", "Request:": "harmful"}
    tokenizer = TOKENIZER

    def __init__(self, **given):
        if given["model"] == "missing":
            raise OSError("missing is not a local folder\nand more")
        self.given, self.calls = given, []
        limit = given.get("max_model_len", 96)
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=limit))

    def get_tokenizer(self):
        return self.tokenizer

    def generate(self, prompts, settings, use_tqdm):
        assert len(prompts) == len(settings)
        ids = [p["prompt_token_ids"] for p in prompts]
        self.calls.append((ids, [s.given for s in settings]))
        return [self._one(i, s.given) for i, s in zip(ids, settings, strict=True)]

    def _one(self, ids, given):
        assert len(ids) + given["max_tokens"] <= self.llm_engine.model_config.max_model_len
        out = []
        while len(out) < given["max_tokens"]:
            out.append(self._next([*ids, *out]))
            ended = next((s for s in given["stop"] if s in self._text(out)), None)
            if ended or out[-1] == END:
                break
        finish = "stop" if ended or out[-1] == END else "length"
        made = SimpleNamespace(token_ids=out, finish_reason=finish, stop_reason=ended, logprobs=None)
        if given["logprobs"]:
            made.logprobs = [{self._next(ids): SimpleNamespace(logprob=math.log(0.9))}]
        rows = [None, *({i: SimpleNamespace(logprob=self._p(ids[:k], i))} for k, i in enumerate(ids) if k)]
        return SimpleNamespace(outputs=[made], prompt_logprobs=rows if given["prompt_logprobs"] else None)

    def _text(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def _p(self, context, token):
        return math.log(0.9 if self._next(context) == token else 1e-3)

    def _next(self, context):
        for cue, text in self.answers.items():
            head, tail = (self.tokenizer.encode(t, add_special_tokens=False).ids for t in (cue, text))
            for k in range(len(tail) + 1):
                if context[-len(head) - k :] == head + tail[:k]:
                    return tail[k] if k < len(tail) else END
        return END


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=SamplingParams))
    return load_engine("vllm", model="some/model", revision="abc", tensor_parallel_size=2)


def test_it_is_an_engine_and_says_how_vllm_is_made(engine):
    assert isinstance(engine, Engine)
    assert engine.capabilities.context_tokens == 96
    given = engine.llm.given
    assert given["trust_remote_code"] is False
    assert given["load_format"] == "safetensors"
    assert (given["revision"], given["tensor_parallel_size"]) == ("abc", 2)


def test_a_whole_plan_is_followed(engine):
    words = (" harmful", " unharmful")
    plan = (Free(20, ("---",)), Text("---\nRequest:"), Choice(words), Text("\n"))
    ((done,),) = engine.run([(Scaffold("Human user:"),)], plan)
    assert done.text == "the user asks ---\nRequest: harmful\n"
    assert done.choices == ({" harmful": math.log(0.9), " unharmful": math.log(1e-3)},)
    assert (done.finish, done.prompt_tokens, done.completion_tokens) == ("stop", 2, 5)
    asked = [ids[0] for ids, _ in engine.llm.calls]
    assert asked[1] == [*asked[0], *engine.tokenizer.continuation("the user asks---\nRequest:")]


def test_the_end_token_does_not_stay_in_the_context(engine):
    ((done,),) = engine.run([(Scaffold("Request:"),)], (Free(20), Text("\nRequest:"), Free(1)))
    assert done.text == "harmful\nRequest:harmful"
    assert all(END not in ids for call, _ in engine.llm.calls for ids in call)


def test_a_word_of_several_tokens_is_scored_whole(monkeypatch):
    class Byte(LLM):
        tokenizer = byte_bpe()
        answers: ClassVar[dict[str, str]] = {"kill:": " xyq"}

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Byte, SamplingParams=SamplingParams))
    engine = load_engine("vllm", model="m")
    ((done,),) = engine.run([(Scaffold("kill:"),)], (Choice((" xyq", " harmful")),))
    assert len(engine.tokenizer.word(" xyq")) > 1
    assert done.choices[0][" xyq"] == pytest.approx(math.log(0.9) * len(engine.tokenizer.word(" xyq")))
    assert done.text == " xyq"


def test_samples_have_seeds_of_their_own(engine):
    engine.run([(Scaffold("Human user:"),)], (Free(5),), n=3, temperature=0.8)
    settings = engine.llm.calls[0][1]
    assert len({s["seed"] for s in settings}) == 3
    assert {(s["temperature"], s["top_p"]) for s in settings} == {(0.8, 0.95)}
    copies = engine.run([(Scaffold("Human user:"),)], (Free(5),), n=3)[0]
    assert copies == [copies[0]] * 3


def test_no_special_id_stands_for_judged_text(engine):
    markers = " ".join(t.content for t in TOKENIZER.get_added_tokens_decoder().values())
    ((done,),) = engine.run([(Scaffold("Human user:"), Judged(markers[:40]))], (Free(1),))
    sent = engine.llm.calls[0][0][0]
    assert not engine.tokenizer.guarded & set(sent[2:])
    assert done.notes["special_tokens"] > 1


def test_too_long_and_too_late_rows_are_said_to_be(engine):
    prompts = [(Scaffold("Human user:"), Judged(t)) for t in ("kill", "kill " * 200)]
    done = [c for (c,) in engine.run(prompts, ours.plan("instant", (Task.prompt_harm,)))]
    assert [c.finish for c in done] == ["stop", "input_too_long"]
    ((late,),) = engine.run(prompts[:1], (Free(4),), deadline=time.monotonic() - 1)
    assert late.finish == "timeout"


def test_free_text_leaves_room_for_the_answer_block(engine):
    prompt = (Scaffold("Human user:"), Judged("kill " * 80), Scaffold("Human user:"))
    ((done,),) = engine.run([prompt], (Free(50), Text("Request:"), Choice((" harmful", " unharmful"))))
    assert done.finish in ("stop", "length")
    assert done.text.endswith("Request: harmful")


def test_what_vllm_cannot_load_is_one_sentence(engine):
    with pytest.raises(EngineError, match="vLLM cannot load missing: missing is not a local folder") as caught:
        load_engine("vllm", model="missing")
    assert "\n" not in str(caught.value)


def test_without_vllm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependency, match="guardreasoner\\[vllm\\]"):
        load_engine("vllm", model="m")
