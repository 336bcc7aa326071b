"""Where published rows come from: the hub, a file on GitHub, or the official benchmark files.

A `Source` is one line of a table, and `load_rows` yields its upstream rows unchanged. What a row means (filter, label
rule) is said in `seeds` and `benchmarks`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from guardreasoner.errors import DataError, need
from guardreasoner.formats.guardreasoner import ASSISTANT, HUMAN
from guardreasoner.types import Example, Exchange, Labels

T = TypeVar("T")

_SEPARATOR = f"\n\n{ASSISTANT}\n"
_FETCH_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Source:
    """One upstream data set."""

    repo: str
    """Hub id, or `owner/name` on GitHub where `url` is given."""
    split: str = ""
    config: str | None = None
    revision: str | None = None
    """Pinned commit or tag; None = not known to us, the content is checked by fingerprint instead."""
    url: str | None = None
    """A file on GitHub (`.csv`, `.json`, `.jsonl.gz`) instead of a hub data set."""
    gated: bool = False
    """The hub asks for its terms to be accepted."""
    licence: str = ""
    note: str = ""

    @property
    def page(self) -> str:
        """The page a person visits."""
        return f"https://github.com/{self.repo}" if self.url else f"https://huggingface.co/datasets/{self.repo}"


class SkippedRow(NamedTuple):
    """A row that the table's rule leaves out, and why."""

    reason: str


def harm(harmful: bool) -> str:
    """The label of a request or a reply."""
    return "harmful" if harmful else "unharmful"


def example_of(prompt: Any, response: Any = None, category: str = "", **labels: str | None) -> Example:
    """An example with the labels that a row function names; its id and source come later."""
    text = None if response is None else str(response)
    return Example(Exchange(id="", prompt=str(prompt), response=text), Labels(**labels), category)  # type: ignore[arg-type]


def is_safe(row: Mapping[str, Any]) -> Example:
    """`is_safe` decides (SafeRLHF, BeaverTails); the kinds of harm are kept."""
    kinds = row.get("category")
    names = ",".join(k for k, v in kinds.items() if v) if isinstance(kinds, Mapping) else ""
    return example_of(row["prompt"], row["response"], names, response_harm=harm(not row["is_safe"]))


def load_rows(source: Source, name: str) -> list[dict[str, Any]]:
    """The upstream rows of a source, in upstream order."""
    if source.url:
        return _parse_download(_fetch(source.url, name), source.url)
    datasets = need("datasets", "data")
    token = os.environ.get("HF_TOKEN")
    try:
        rows = datasets.load_dataset(
            source.repo, source.config, split=source.split, revision=source.revision, token=token
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(_why(source, name, error)) from None
    return [dict(row) for row in rows]


def take(rule: Callable[[Mapping[str, Any]], T], rows: Iterable[Mapping[str, Any]], where: str) -> Iterator[T]:
    """Apply a row function to upstream rows."""
    for number, row in enumerate(rows):
        try:
            yield rule(row)
        except (KeyError, TypeError, ValueError) as error:
            detail = (
                f"no column {error}" if isinstance(error, KeyError) else f"an unexpected value ({type(error).__name__})"
            )
            raise DataError(f"{where}, row {number}: {detail}; the set may have changed upstream") from None


def _why(source: Source, name: str, error: Exception) -> str:
    denied = type(error).__name__ == "DatasetNotFoundError" or "gated" in str(error).lower()
    if source.gated and denied:
        return (
            f"{name} is gated: accept its terms at {source.page}, then set HF_TOKEN to a token of that account, "
            "or give --data DIR with the official file"
        )
    return (
        f"{name} could not be loaded from {source.page} ({type(error).__name__}); check the network, or give --data DIR"
    )


def _fetch(url: str, name: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_FETCH_TIMEOUT_S) as reply:
            return bytes(reply.read())
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise DataError(
            f"{name} could not be fetched from {url} ({type(error).__name__}); check the network, or give --data DIR"
        ) from None


def _parse_download(content: bytes, url: str) -> list[dict[str, Any]]:
    if url.endswith(".gz"):
        content, url = gzip.decompress(content), url.removesuffix(".gz")
    text = content.decode("utf-8")
    if url.endswith(".csv"):
        return list(csv.DictReader(io.StringIO(text, newline="")))
    if url.endswith(".jsonl"):
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    value = json.loads(text)
    return [row for rows in value.values() for row in rows] if isinstance(value, dict) else list(value)


def input_block(prompt: str, response: str | None) -> str:
    """The official `input` of an exchange; `read_input_block` is its inverse."""
    return f"{HUMAN}\n{prompt}{_SEPARATOR}{'None' if response is None else response}\n\n"


def read_input_block(text: str) -> tuple[str, str | None]:
    """Request and reply (None = no reply) of an official `input`."""
    head, tail = f"{HUMAN}\n", f"{_SEPARATOR}None\n\n"
    if not text.startswith(head) or not text.endswith("\n\n") or _SEPARATOR not in text:
        raise DataError(f"not an input block ({HUMAN} … {ASSISTANT} …)", field="input")
    if text.endswith(tail):
        return text[len(head) : -len(tail)], None
    if text.count(_SEPARATOR) > 1:
        raise DataError("judged text repeats the frame, so the cut is not certain", field="input")
    prompt, response = text[len(head) : -2].split(_SEPARATOR)
    return prompt, response
