"""Chat templates of real models, rendered without transformers: the same text, or one sentence."""

import json
from datetime import datetime

import pytest

from guardreasoner.engines.chat_template import chat_template
from guardreasoner.engines.prompt_tokens import PromptTokenizer
from guardreasoner.errors import ConfigError, EngineError
from guardreasoner.generation import Chat, Judged, Turn

pytest.importorskip("jinja2")
BODY = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
CASES = [
    (BODY, "<s>hello"),
    (BODY.replace("{{ m['content'] }}", "{% generation %}{{ m['content'] }}{% endgeneration %}"), "<s>hello"),
    ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "13"),
    ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
    ("{{ {'a': 'é<'} | tojson }}", '{"a": "é<"}'),
    ("{{ {'a': [1]} | tojson(indent=1) }}", '{\n "a": [\n  1\n ]\n}'),
    ("{{ strftime_now('%Y') }}", str(datetime.now().year)),
    ("{% if x is defined %}{{ raise_exception('no') }}{% endif %}ok", "ok"),
    ("{% if tools is not none %}tools{% endif %}{% if pad_token is defined %}pad{% endif %}none", "none"),
    ("  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),
]


def folder_with(folder, template, **config):
    settings = {"bos_token": "<s>", "pad_token": None, "add_bos_token": True, "chat_template": template, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(("template", "text"), CASES)
def test_a_template_renders_as_in_transformers(tmp_path, template, text):
    render = chat_template(folder_with(tmp_path, template))
    assert render is not None
    assert render([{"role": "user", "content": "hello"}], {}) == text


def test_transformers_renders_the_same():
    render = pytest.importorskip("transformers.utils.chat_template_utils").render_jinja_template
    messages = [{"role": "user", "content": "hello"}]
    for template, text in CASES:
        (made,), _ = render(conversations=[messages], chat_template=template, bos_token="<s>")
        assert made == text


@pytest.mark.parametrize("token", [None, {"content": None}])
def test_a_token_that_the_tokenizer_lacks_is_nothing(tmp_path, token):
    render = chat_template(folder_with(tmp_path, BODY, bos_token=token))
    assert render is not None
    assert render([{"role": "user", "content": "hello"}], {}) == "hello"


def test_named_templates_and_token_maps_are_read(tmp_path):
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "{{ eos_token }}"}]
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "</s>"}, "bos_token": "<x>"}')
    render = chat_template(folder_with(tmp_path, named))
    assert render is not None
    assert render([], {}) == "</s>"
    (tmp_path / "chat_template.jinja").write_text(BODY)
    render = chat_template(tmp_path)
    assert render is not None
    assert render([], {}) == "<s>"
    assert chat_template(tmp_path / "nothing") is None
    (tmp_path / "special_tokens_map.json").write_text("{")
    with pytest.raises(ConfigError, match=r"special_tokens_map\.json is not JSON"):
        chat_template(tmp_path)


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('planted') }}", "{% unknown %}", "{{ 1 / 0 }}", "{{ x.y.z }}"]
)
def test_a_template_that_fails_is_one_sentence(tmp_path, template):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    encoder = PromptTokenizer(Tokenizer(WordLevel({"a": 0}, "a")), chat=chat_template(folder_with(tmp_path, template)))
    with pytest.raises(EngineError, match=r"the model's chat template cannot render this prompt \(") as error:
        encoder.encode(Chat((Turn("user", (Judged("hello"),)),)))
    assert "planted" not in str(error.value)
