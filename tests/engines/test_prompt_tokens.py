"""Judged text can form no special token, whatever the tokenizer; harmless text is encoded as the model knows it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

import tiny
from guardreasoner.engines.prompt_tokens import PromptTokenizer, clean, tokenizer_from, tokenizer_of
from guardreasoner.errors import ConfigError, PlanUnsupported
from guardreasoner.formats import guardreasoner as ours
from guardreasoner.generation import Chat, Judged, Scaffold, Turn
from guardreasoner.types import Exchange
from tokenizers_of_all_kinds import KINDS

TOKENIZERS = {
    name: PromptTokenizer(make(), chat=lambda m, a: "".join(f"<|{x['role']}|>{x['content']}" for x in m))
    for name, make in KINDS.items()
}
MARKERS = sorted({t.content for e in TOKENIZERS.values() for t in e.base.get_added_tokens_decoder().values()})
hostile = st.lists(
    st.one_of(st.sampled_from(MARKERS), st.text(max_size=8), st.sampled_from(["<|", "|>", "\0", "\ud800", " "]))
)


def test_every_kind_of_tokenizer_is_in_the_suite():
    assert set(TOKENIZERS) == {"wordpiece", "byte_bpe", "metaspace_bpe", "unigram"}
    assert len(MARKERS) > 25


@pytest.mark.parametrize("name", TOKENIZERS)
@given(parts=hostile)
@settings(max_examples=60, deadline=None)
def test_no_special_id_stands_for_judged_text(name, parts):
    tokenizer, text = TOKENIZERS[name], "".join(parts)
    assert not tokenizer.guarded & set(tokenizer.judged(text))
    scaffold = "Human user:\n", "\n\nAI assistant:\n"
    ids = tokenizer.encode((Scaffold(scaffold[0]), Judged(text), Scaffold(scaffold[1]))).ids
    bare = tokenizer.encode((Scaffold(scaffold[0]), Judged(""), Scaffold(scaffold[1]))).ids
    assert sum(i in tokenizer.guarded for i in ids) == sum(i in tokenizer.guarded for i in bare)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("wire", ["raw", "chat"])
def test_every_marker_in_an_exchange_is_ordinary_text(name, wire):
    tokenizer = TOKENIZERS[name]
    text = " ".join(MARKERS)
    counts = []
    for judged in (text, "hello"):
        ids = tokenizer.encode(ours.render(Exchange("x", judged, judged), wire)).ids
        counts.append(sum(i in tokenizer.guarded for i in ids))
    assert counts[0] == counts[1]


def test_a_marker_cannot_be_formed_across_the_edge_of_judged_text():
    tokenizer = TOKENIZERS["byte_bpe"]
    encoded = tokenizer.encode((Scaffold("say <|eot"), Judged("_id|> now")))
    assert tokenizer.base.token_to_id("<|eot_id|>") not in encoded.ids
    assert encoded.special == 1


def test_our_own_special_tokens_stay_special():
    tokenizer = TOKENIZERS["byte_bpe"]
    ids = tokenizer.encode((Scaffold("<|eot_id|>"), Judged("<|eot_id|>"))).ids
    assert ids.count(tokenizer.base.token_to_id("<|eot_id|>")) == 1


def test_an_added_token_that_is_not_called_special_is_cut_in_two():
    tokenizer = TOKENIZERS["byte_bpe"]
    think = tokenizer.base.token_to_id("<think>")
    assert think in tokenizer.base.encode("<think>").ids
    assert think not in tokenizer.judged("a <think> b <think>")
    assert tokenizer.decode(tokenizer.judged("a <think> b <think>")) == "a <think> b <think>"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_harmless_prompt_is_encoded_as_one_text(name):
    tokenizer = TOKENIZERS[name]
    segments = Scaffold("User: "), Judged("how do I kill a process"), Scaffold(" please")
    whole = tokenizer.base.encode("User: how do I kill a process please").ids
    assert list(tokenizer.encode(segments).ids) == whole


def test_nul_and_lone_surrogates_are_replaced_in_place():
    assert clean("a\0b\ud800c😀") == "a\ufffdb\ufffdc😀"
    assert TOKENIZERS["wordpiece"].judged("how\0to \udfff kill")  # what follows is kept
    assert TOKENIZERS["byte_bpe"].decode(TOKENIZERS["byte_bpe"].judged("a\0b")) == "a\ufffdb"


def test_the_prefix_is_what_our_own_text_alone_gives():
    tokenizer = TOKENIZERS["byte_bpe"]
    one, two = (tokenizer.encode(ours.render(Exchange("x", t), "raw")) for t in ("kill", "\nhelp"))
    shared = min(one.prefix, two.prefix)
    assert shared > 100
    assert one.ids[:shared] == two.ids[:shared]
    assert one.prefix < len(one.ids)


def test_a_chat_template_trims_what_it_would_trim_and_sees_no_judged_text():
    seen = []

    def template(messages, arguments):
        seen.append((messages, dict(arguments)))
        return "<|begin_of_text|>" + messages[0]["content"].strip()

    tokenizer = PromptTokenizer(KINDS["byte_bpe"](), chat=template)
    chat = Chat((Turn("user", (Judged("  secret <|eot_id|>\n"),)),), {"policy": "p"})
    encoded = tokenizer.encode(chat)
    assert "secret" not in str(seen)
    assert seen[0][1] == {"policy": "p"}
    assert tokenizer.decode(encoded.ids) == "secret <|eot_id|>"
    assert encoded.special == 1


def test_content_parts_are_given_as_a_list():
    seen = []
    tokenizer = PromptTokenizer(KINDS["byte_bpe"](), chat=lambda m, a: seen.append(m) or m[0]["content"][0]["text"])
    tokenizer.encode(Chat((Turn("user", (Judged("hi"),)),), {"content_parts": True}))
    assert seen[0][0]["content"][0]["type"] == "text"


def test_a_template_that_drops_the_text_to_judge_is_an_error():
    tokenizer = PromptTokenizer(KINDS["byte_bpe"](), chat=lambda m, a: "nothing")
    with pytest.raises(Exception, match="leaves out part of the text"):
        tokenizer.encode(Chat((Turn("user", (Judged("hi"),)),)))


def test_a_model_without_a_chat_template_says_so():
    with pytest.raises(PlanUnsupported, match="no chat template"):
        PromptTokenizer(tiny.tiny_tokenizer()).encode(Chat((Turn("user", (Judged("hi"),)),)))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_forced_text_goes_on_without_a_new_start(name):
    tokenizer = TOKENIZERS[name]
    both = tokenizer.base.encode("Request: harmful", add_special_tokens=False).ids
    joined = [*tokenizer.base.encode("Request:", add_special_tokens=False).ids, *tokenizer.continuation(" harmful")]
    assert joined == both


def test_a_word_that_the_tokenizer_cannot_write_is_refused():
    with pytest.raises(PlanUnsupported, match="cannot write"):
        TOKENIZERS["wordpiece"].word(" 無害")


def test_decoding_keeps_scaffold_and_drops_control_markers():
    wordpiece, llama = TOKENIZERS["wordpiece"], TOKENIZERS["byte_bpe"]
    ids = [*wordpiece.continuation("Answers:"), wordpiece.base.token_to_id("[PAD]")]
    assert wordpiece.decode(ids) == "Answers:"
    assert llama.decode(llama.base.encode("a<|eot_id|>").ids) == "a"
    assert "<|eot_id|>" in PromptTokenizer(KINDS["byte_bpe"](), show_special=True).decode(
        llama.base.encode("<|eot_id|>").ids
    )


def test_a_space_at_the_start_of_an_answer_is_kept():
    tokenizer = TOKENIZERS["metaspace_bpe"]
    assert tokenizer.decode(tokenizer.continuation(" harmful")) == " harmful"


def test_offsets_are_of_the_text_as_given():
    for tokenizer in TOKENIZERS.values():
        text = "kill <mask>\0 the process \ud800 please"
        spans = tokenizer.offsets(text)
        assert spans[-1][1] == len(text)
        assert all(0 <= a <= b <= len(text) for a, b in spans)


def test_a_prompt_tokenizer_is_made_of_a_bare_tokenizer():
    tokenizer = tiny.tiny_tokenizer()
    ids = tokenizer_of(tokenizer).encode((Scaffold("Human user:\n"), Judged("[SEP] kill"))).ids
    assert tokenizer.token_to_id("[SEP]") not in ids


def test_a_folder_without_a_readable_tokenizer_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        tokenizer_from(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match="is not a tokenizer"):
        tokenizer_from(tmp_path)


def test_a_folder_brings_its_own_chat_template(tmp_path):
    pytest.importorskip("jinja2")
    KINDS["byte_bpe"]().save(str(tmp_path / "tokenizer.json"))
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] | trim }}{% endfor %}"
    template += "{% if add_generation_prompt %}!{% endif %}"
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<|begin_of_text|>", "chat_template": template})
    )
    tokenizer = tokenizer_from(tmp_path)
    ids = tokenizer.encode(Chat((Turn("user", (Judged(" kill "),)),))).ids
    assert ids[0] == tokenizer.base.token_to_id("<|begin_of_text|>")
    assert tokenizer.decode(ids) == "kill!"


def test_a_single_character_marker_is_replaced():
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFC(), pre_tokenizers.Whitespace()
    tokenizer.add_tokens([AddedToken("§", special=False, normalized=False)])
    tokenizer = PromptTokenizer(tokenizer)
    assert tokenizer.judged("a § a") == [1, 0, 1]
