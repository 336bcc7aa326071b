"""Prompts to token ids such that judged text cannot form a special token, and ids back to text.

A prompt without hostile strings is encoded in one piece, exactly as the model saw it in training. If a special token
would overlap judged text, the prompt is encoded segment by segment, with special tokens disabled in judged text.
Tokens that a tokenizer cannot disable (added tokens that are not marked special, such as `<think>`) are split and
encoded as two ordinary strings. The model reads the same text either way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from guardreasoner.engines.chat_template import ChatTemplate, chat_template
from guardreasoner.errors import ConfigError, EngineError, GuardReasonerError, PlanUnsupported
from guardreasoner.generation import Chat, Judged, Prompt, Scaffold, Segment

_UNSENDABLE = re.compile("[\0\ud800-\udfff]")
_MARKER = re.compile(r"\s*(<.*>|\[[A-Z0-9_/ ]+\])\s*", re.S)
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_SENTINEL = re.compile("\ue000(\\d+)\ue001")
_ANCHORS = ("\n", "a", ":")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt in token ids."""

    ids: tuple[int, ...]
    prefix: int = 0
    """How many leading ids come from our own text only, and are the same for every prompt of the kind."""
    special: int = 0
    """How many special-token strings were found in judged text and made ordinary (blanks and line ends not counted)."""


class PromptTokenizer:
    """A tokenizer as engines use it. Safe to share between threads."""

    def __init__(
        self, tokenizer: Tokenizer, *, chat: ChatTemplate | None = None, lead: bool = True, show_special: bool = False
    ) -> None:
        """Args:
        tokenizer: copied; truncation and padding are switched off in the copy.
        chat: the model's chat template, if it has one.
        lead: begin prompts that are not chats with what the tokenizer begins a text with (BOS, [CLS]).
        show_special: `decode` shows markers such as `<|channel|>` too, for formats that are made of them.
        """
        content = tokenizer.to_str()
        self.base, self._plain = Tokenizer.from_str(content), Tokenizer.from_str(content)
        for copy in (self.base, self._plain):
            copy.no_truncation()
            copy.no_padding()
        self._plain.encode_special_tokens = True
        self._chat = chat
        added = self.base.get_added_tokens_decoder()
        self.guarded = frozenset(i for i, token in added.items() if token.special or _is_marker(token.content))
        """Ids that judged text must never be encoded to."""
        self._blank = frozenset(i for i in self.guarded if not added[i].content.strip())
        hidden = (i for i, token in added.items() if token.special and _MARKER.fullmatch(token.content))
        self._hidden = frozenset() if show_special else frozenset(hidden)
        self._lead = self._leading() if lead else ()
        self._unknown = getattr(self.base.model, "unk_token", None)
        self._fixed: dict[str, tuple[int, ...]] = {}
        self._words: dict[str, tuple[int, ...]] = {}
        self._shown: dict[int, str] = {}

    def encode(self, prompt: Prompt) -> Encoded:
        """The ids of a prompt."""
        chat = isinstance(prompt, Chat)
        segments = _merged(self._rendered(prompt) if isinstance(prompt, Chat) else prompt)
        lead = () if chat else self._lead
        ids, found = self._whole(segments)
        if found:
            ids = [i for s in segments for i in (self.judged(s.text) if isinstance(s, Judged) else self._ids(s.text))]
        first = segments[0].text if segments and isinstance(segments[0], Scaffold) else ""
        special = sum(i not in self._blank for i in found)
        return Encoded((*lead, *ids), len(lead) + _common(ids, self._fixed_ids(first)), special)

    def text(self, prompt: Prompt) -> str:
        """The text that the model reads."""
        return "".join(s.text for s in (self._rendered(prompt) if isinstance(prompt, Chat) else prompt))

    def judged(self, text: str) -> list[int]:
        """The ids of judged text by itself: none of `guarded` is among them."""
        pieces = [clean(text)]
        ids: list[int] = []
        while pieces:
            piece = pieces.pop()
            encoding = self._plain.encode(piece, add_special_tokens=False)
            found = [span for i, span in zip(encoding.ids, encoding.offsets, strict=True) if i in self.guarded]
            if not found:
                ids.extend(reversed(encoding.ids))
                continue
            cuts = sorted({a + 1 for a, b in found if b - a > 1})
            if cuts:
                bounds = [0, *cuts, len(piece)]
                pieces.extend(piece[a:b] for a, b in pairwise(bounds))
            else:  # a token of a single character cannot be cut
                pieces.append("".join("\ufffd" if (i, i + 1) in set(found) else c for i, c in enumerate(piece)))
                if pieces[-1] == piece:
                    ids.extend(i for i in reversed(encoding.ids) if i not in self.guarded)
                    pieces.pop()
        return ids[::-1]

    def continuation(self, text: str) -> tuple[int, ...]:
        """The ids of our own text that continues other text (without a start-of-text token)."""
        if text in self._words:
            return self._words[text]
        ids: Sequence[int] = self._ids(text)
        for anchor in _ANCHORS:
            head, whole = self._ids(anchor), self._ids(anchor + text)
            if whole[: len(head)] == head:
                ids = whole[len(head) :]
                break
        if len(self._words) < 4096:
            self._words[text] = tuple(ids)
        return tuple(ids)

    def word(self, text: str) -> tuple[int, ...]:
        """The ids of a word of a `Choice`."""
        ids = self.continuation(text)
        if not ids or (self._unknown is not None and self.base.token_to_id(str(self._unknown)) in ids):
            raise PlanUnsupported(f"this model's tokenizer cannot write the word {text!r}")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without control markers such as `<|eot_id|>` and `[PAD]`."""
        shown = [i for i in ids if i not in self._hidden]
        text: str = self.base.decode(shown, skip_special_tokens=False)
        if shown and not text.startswith(" ") and (self.base.id_to_token(shown[0]) or "").startswith("▁"):
            return " " + text  # the decoder takes the first word for the start of a text
        return text

    def lasting(self, ids: Sequence[int]) -> str:
        """The part of the ids' text that no following id can change.

        The last of them may be a part of a character, and a run of byte tokens is read as a whole: one byte that does
        not fit makes all of it U+FFFD.
        """
        shown = [i for i in ids if i not in self._hidden]
        while shown and _BYTE.fullmatch(self.base.id_to_token(shown[-1]) or ""):
            shown.pop()
        return self.decode(shown).rstrip("\ufffd")

    def shown(self, token: int) -> str:
        """Text of one id by itself; U+FFFD where it is a part of a character."""
        if token not in self._shown:
            self._shown[token] = self.decode((token,))
        return self._shown[token]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character span of every token of judged text."""
        return list(self._plain.encode(clean(text), add_special_tokens=False).offsets)

    def _ids(self, text: str) -> list[int]:
        return list(self.base.encode(text, add_special_tokens=False).ids)

    def _leading(self) -> tuple[int, ...]:
        bare, full = self._ids("a"), list(self.base.encode("a").ids)
        at = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
        return tuple(full[:at])

    def _whole(self, segments: Sequence[Segment]) -> tuple[list[int], list[int]]:
        """All segments in one piece, and the guarded ids in judged text, whole or in part."""
        texts = [clean(s.text) if isinstance(s, Judged) else s.text for s in segments]
        encoding = self.base.encode("".join(texts), add_special_tokens=False)
        spans, start = [], 0
        for segment, text in zip(segments, texts, strict=True):
            if isinstance(segment, Judged):
                spans.append((start, start + len(text)))
            start += len(text)
        found = [(i, *o) for i, o in zip(encoding.ids, encoding.offsets, strict=True) if i in self.guarded]
        return list(encoding.ids), [i for i, a, b in found if any(a < end and start < b for start, end in spans)]

    def _fixed_ids(self, text: str) -> tuple[int, ...]:
        if text not in self._fixed:
            if len(self._fixed) >= 64:
                self._fixed.clear()
            self._fixed[text] = tuple(self._ids(text)) if text else ()
        return self._fixed[text]

    @staticmethod
    def _said(template: ChatTemplate, messages: list[dict[str, Any]], arguments: Mapping[str, Any]) -> str:
        try:
            return template(messages, arguments)
        except GuardReasonerError:
            raise
        except Exception as error:  # whatever a template does: refuse, divide by zero, be no Jinja
            raise EngineError(f"the model's chat template cannot render this prompt ({type(error).__name__})") from None

    def _rendered(self, chat: Chat) -> list[Segment]:
        """Apply the chat template to placeholders, then put the judged texts in their places."""
        if self._chat is None:
            raise PlanUnsupported("this model has no chat template; use a guard whose wire is raw")
        arguments = dict(chat.template_args)
        parts = bool(arguments.pop("content_parts", False))
        judged: list[Judged] = []
        messages: list[dict[str, Any]] = []
        for turn in chat.turns:
            content = "".join(_sentinel(s, judged, trim=not self._blank) for s in turn.content)
            messages.append({"role": turn.role, "content": [{"type": "text", "text": content}] if parts else content})
        pieces = _SENTINEL.split(self._said(self._chat, messages, arguments))
        if {int(i) for i in pieces[1::2]} != set(range(len(judged))):
            raise EngineError(
                "the model's chat template leaves out part of the text to judge; this guard cannot use it"
            )
        return [judged[int(p)] if k % 2 else Scaffold(p) for k, p in enumerate(pieces)]


def tokenizer_of(tokenizer: Any, **options: Any) -> PromptTokenizer:
    """An encoder for a `tokenizers.Tokenizer` or a fast tokenizer of transformers, with its chat template."""
    if isinstance(tokenizer, Tokenizer):
        return PromptTokenizer(tokenizer, **options)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ConfigError("this model's tokenizer cannot keep judged text apart; a tokenizer.json is needed")

    def chat(messages: list[dict[str, Any]], arguments: Mapping[str, Any]) -> str:
        settings = {"add_generation_prompt": True, **arguments}
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **settings))

    return PromptTokenizer(backend, chat=chat if getattr(tokenizer, "chat_template", None) else None, **options)


def tokenizer_from(folder: Path, **options: Any) -> PromptTokenizer:
    """An encoder from a folder with tokenizer.json and, for chats, a chat template; needs no transformers."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(f"{folder} has no tokenizer.json; export the model again")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise ConfigError(f"{path} is not a tokenizer ({type(error).__name__}); export the model again") from None
    return PromptTokenizer(tokenizer, chat=chat_template(folder), **options)


def clean(text: str) -> str:
    """Judged text that can be encoded: NUL and lone surrogates become U+FFFD, every other character stays in place."""
    return _UNSENDABLE.sub("\ufffd", text)


def _is_marker(content: str) -> bool:
    """Whether an added token is a marker although it is not called special: `<think>`, but not a run of blanks."""
    return bool(content.strip()) and not content.strip().isalnum()


def _merged(segments: Sequence[Segment]) -> list[Segment]:
    merged: list[Segment] = []
    for segment in segments:
        if merged and isinstance(segment, Scaffold) and isinstance(merged[-1], Scaffold):
            merged[-1] = Scaffold(merged[-1].text + segment.text)
        elif segment.text:
            merged.append(segment)
    return merged


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _sentinel(segment: Segment, judged: list[Judged], *, trim: bool) -> str:
    """Our own text as it is; judged text as a mark. Its outer blanks are left for the template to trim, unless blanks
    are special tokens to this tokenizer."""
    if isinstance(segment, Scaffold):
        return segment.text
    text = clean(segment.text)
    core = text.strip() if trim else text
    if not core:
        return text
    judged.append(Judged(core))
    before, after = text.split(core, 1)
    return f"{before}\ue000{len(judged) - 1}\ue001{after}"
