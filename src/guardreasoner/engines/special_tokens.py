"""Special-token strings in text for servers that accept only text: there they could forge a turn or an answer.

The server's tokenizer is unknown here, so this module lists the strings of common model families; add your own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from guardreasoner.engines.prompt_tokens import clean
from guardreasoner.generation import Judged, Segment

KNOWN = (
    r"<\|[^|<>\n]{1,64}\|>",  # ChatML, Llama 3 and 4, Phi, gpt-oss: <|im_start|>, <|eot_id|>, <|channel|>
    r"</?s>|<unk>|<pad>|<bos>|<eos>|<mask>",  # Llama 2, Mistral, Gemma, T5
    r"</?(?:start|end)_of_(?:turn|image|role|text)>|<end_of_utterance>",  # Gemma, Granite
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK|IMG)\]|<</?SYS>>",  # Mistral, Llama 2
    r"</?(?:think|tool_call|tool_response|tools)>",  # Qwen 3, DeepSeek
    r"<｜[^｜\n]{1,64}｜>",  # DeepSeek
    r"\[(?:CLS|SEP|PAD|MASK|UNK)\]",  # BERT
)


def break_up(text: str, more: Sequence[str] = ()) -> tuple[str, int]:
    """Text whose special-token strings have a blank after their first character, and how many there were."""
    pattern = _pattern(tuple(more))
    text, count = pattern.subn(_broken, text)
    for _ in range(3):  # putting in a blank may form another of the strings
        text, again = pattern.subn(_broken, text)
        if not again:
            break
    return text, count


def sendable(segments: Iterable[Segment], more: Sequence[str] = ()) -> tuple[str, int]:
    """A prompt as one text with special-token strings broken up in what is judged, and how many there were."""
    parts = [break_up(clean(s.text), more) if isinstance(s, Judged) else (s.text, 0) for s in segments]
    return "".join(text for text, _ in parts), sum(count for _, count in parts)


def _broken(found: re.Match[str]) -> str:
    return f"{found[0][0]} {found[0][1:]}"


@lru_cache(maxsize=64)
def _pattern(more: tuple[str, ...]) -> re.Pattern[str]:
    given = sorted((re.escape(s) for s in more if len(s) > 1), key=len, reverse=True)
    return re.compile("|".join([*given, *KNOWN]))
