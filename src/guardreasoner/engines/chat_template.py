"""A model folder's chat template, rendered as transformers renders it, without transformers.

Follows `transformers.utils.chat_template_utils`: sandboxed Jinja, `{% generation %}` and `{% break %}`, a `tojson` that
keeps Unicode, `raise_exception`, `strftime_now`, and only those special tokens that the tokenizer has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from guardreasoner.errors import ConfigError, need

ChatTemplate = Callable[[list[dict[str, Any]], Mapping[str, Any]], str]
"""Messages and template arguments to the text of the prompt."""


def chat_template(folder: Path) -> ChatTemplate | None:
    """The chat template of a model folder; None where it has none."""
    config = _json(folder / "tokenizer_config.json")
    file = folder / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {row["name"]: row["template"] for row in source}.get("default")
    if not isinstance(source, str):
        return None
    tokens = {**_json(folder / "special_tokens_map.json"), **config}
    known = {name: _content(token) for name, token in tokens.items() if name.endswith("_token")}
    special = {name: token for name, token in known.items() if token is not None}
    text = source

    def render(messages: list[dict[str, Any]], arguments: Mapping[str, Any]) -> str:
        settings = {"add_generation_prompt": True, "tools": None, "documents": None, **special, **arguments}
        return str(_compiled(text).render(messages=messages, **settings))

    return render


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        raise ConfigError(f"{path} is not JSON; export the model again") from None
    return found if isinstance(found, dict) else {}


def _content(token: Any) -> str | None:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


@cache
def _compiled(source: str) -> Any:
    sandbox, jinja, extensions = need("jinja2.sandbox", "hf"), need("jinja2", "hf"), need("jinja2.ext", "hf")

    class GenerationTag(extensions.Extension):  # type: ignore[misc, name-defined]
        """Marks what training learns of; to a reader it is nothing."""

        tags = frozenset({"generation"})

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    def raise_exception(message: str) -> None:
        raise jinja.TemplateError(message)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, extensions.loopcontrols]
    )
    environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
    }
    return environment.from_string(source)
