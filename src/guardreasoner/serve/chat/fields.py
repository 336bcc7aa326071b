"""The fields of an OpenAI chat request (`fields.yaml`): which of them the proxy sends on, and how each is checked.

Every wire format that takes messages (LiteLLM, NeMo, LangChain) reads them by this table.
"""

from __future__ import annotations

from guardreasoner.serve.fields import Field, FieldTable
from guardreasoner.yaml_files import packaged

_FILE = packaged("serve/chat/fields.yaml")


def _rows(part: str) -> tuple[Field, ...]:
    named = ((name.partition(" "), paths) for name, paths in _FILE[part].items())
    return tuple(Field(path, kind, int(longest or 0)) for (kind, _, longest), paths in named for path in paths)


MESSAGE = _rows("messages")
SETTINGS = _rows("settings")
"""Everything beside the messages."""
REQUEST = FieldTable((*MESSAGE, *SETTINGS), lists=_FILE["lists"])
"""An OpenAI chat request."""
ROLES = next(field.kind for field in MESSAGE if field.path == "messages[].role")
