"""Files of this package; YAML, in it and given by a user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from guardreasoner.errors import ConfigError, printable


class _OnceEach(yaml.SafeLoader):
    """YAML in which a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.value != "<<"]
        if twice := next((key for number, key in enumerate(keys) if key in keys[:number]), None):
            line = node.start_mark.line + 1
            raise ConfigError(f"the key {printable(str(twice))!r} stands twice in the mapping at line {line}")
        return super().construct_mapping(node, deep)


def in_package(place: str) -> Path:
    """A file or folder of this package."""
    return Path(__file__).parent / place


def packaged(place: str) -> Any:
    """What a YAML file of this package holds."""
    return yaml.safe_load(in_package(place).read_text(encoding="utf-8"))


def read_text(path: str | Path) -> str:
    """A text file of the user's; a byte order mark is skipped.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8; save it as UTF-8") from None


def read_yaml(path: str | Path) -> Any:
    """What a YAML file of the user's holds: data only, no tag makes an object.

    Raises:
        ConfigError: it cannot be read, is not YAML in UTF-8, or has a key twice.
    """
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """What YAML text holds; `where` names it in errors.

    Raises:
        ConfigError: it is not YAML, or has a key twice.
    """
    try:
        return yaml.load(text, Loader=_OnceEach)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        tag = (
            " (tags that make Python objects are refused)"
            if isinstance(error, yaml.constructor.ConstructorError)
            else ""
        )
        raise ConfigError(f"{where}: not YAML{f' at line {mark.line + 1}' if mark else ''}{tag}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
