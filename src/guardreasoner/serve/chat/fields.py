"""The fields of an OpenAI chat request: which of them the proxy sends on, and how each is checked.

Every wire format that takes messages (LiteLLM, NeMo, LangChain) reads them by this table.
"""

from __future__ import annotations

from guardreasoner.serve.fields import Field, FieldTable

ROLES = "=system|developer|user|assistant|tool|function"
EFFORTS = "=none|minimal|low|medium|high|xhigh|max|default"
PARTS = "=text|input_text|output_text|refusal|thinking|reasoning|reasoning_text|summary_text|redacted_thinking"
"""Kinds of content parts that are read; images, audio and files are not."""


def _parts(path: str) -> tuple[Field, ...]:
    """Content as text, or as parts at `path`."""
    part = f"{path}[]"
    return (
        Field(path, "text"),
        Field(part, "text"),
        Field(f"{part}.type", PARTS),
        *(
            Field(f"{part}.{name}", "text")
            for name in ("text", "refusal", "thinking", "reasoning", "reasoning_content")
        ),
        *(
            row
            for inner in ("summary", "content", "thinking", "reasoning")
            for row in (
                Field(f"{part}.{inner}[]", "text"),
                Field(f"{part}.{inner}[].type", PARTS),
                Field(f"{part}.{inner}[].text", "text"),
            )
        ),
        *(Field(f"{part}.{name}", "sealed") for name in ("signature", "data", "encrypted_content")),
        Field(f"{part}.id", "label", 200),
        Field(f"{part}.index", "number"),
        *_cache_control(part),
        *(Field(f"{part}.{name}", "refused") for name in ("image_url", "input_audio", "file", "audio", "image")),
    )


def _cache_control(path: str) -> tuple[Field, ...]:
    return Field(f"{path}.cache_control.type", "=ephemeral"), Field(f"{path}.cache_control.ttl", "=5m|1h")


MESSAGE = (
    Field("messages[].role", ROLES),
    *_parts("messages[].content"),
    Field("messages[].name", "text", 200),
    *(Field(f"messages[].{name}", "text") for name in ("refusal", "reasoning", "reasoning_content")),
    Field("messages[].thinking_blocks[].type", PARTS),
    Field("messages[].thinking_blocks[].thinking", "text"),
    Field("messages[].thinking_blocks[].signature", "sealed"),
    Field("messages[].thinking_blocks[].data", "sealed"),
    Field("messages[].reasoning_details", "json"),
    Field("messages[].annotations", "json"),
    Field("messages[].provider_specific_fields", "json"),
    Field("messages[].tool_calls[].id", "label", 200),
    Field("messages[].tool_calls[].index", "number"),
    Field("messages[].tool_calls[].type", "=function|custom"),
    Field("messages[].tool_calls[].function.name", "text", 200),
    Field("messages[].tool_calls[].function.arguments", "value"),
    Field("messages[].tool_calls[].custom.name", "text", 200),
    Field("messages[].tool_calls[].custom.input", "value"),
    Field("messages[].tool_calls[].extra_content.google.thought_signature", "sealed"),
    Field("messages[].function_call.name", "text", 200),
    Field("messages[].function_call.arguments", "value"),
    Field("messages[].tool_call_id", "label", 200),
    Field("messages[].id", "label", 200),
    Field("messages[].index", "number"),
    Field("messages[].prefix", "flag"),
    Field("messages[].signature", "sealed"),
    *_cache_control("messages[]"),
    Field("messages[].audio", "refused"),
    Field("messages[].images[]", "refused"),
)
"""The same for all roles: everything in a message is read, whoever wrote it."""

_NUMBERS = (
    "temperature", "top_p", "top_k", "top_a", "min_p", "typical_p", "n", "best_of", "seed", "max_tokens", "min_tokens",
    "max_completion_tokens", "presence_penalty", "frequency_penalty", "repetition_penalty", "length_penalty",
    "top_logprobs", "prompt_logprobs", "truncate_prompt_tokens", "num_ctx", "num_predict", "repeat_penalty",
    "repeat_last_n", "mirostat", "mirostat_eta", "mirostat_tau", "tfs_z", "thinking_token_budget", "priority",
)  # fmt: skip
_FLAGS = (
    "stream", "store", "parallel_tool_calls", "ignore_eos", "skip_special_tokens", "spaces_between_special_tokens",
    "include_stop_str_in_output", "use_beam_search", "early_stopping", "echo", "add_generation_prompt",
    "continue_final_message", "add_special_tokens", "include_reasoning", "enable_thinking", "separate_reasoning",
    "stream_reasoning", "cache_prompt", "return_token_ids", "return_tokens_as_token_ids",
)  # fmt: skip
_JSON = (
    "tools", "functions", "response_format", "metadata", "logit_bias", "chat_template_kwargs", "documents",
    "guided_json", "guided_choice", "guided_regex", "guided_grammar", "structured_outputs", "json_schema", "regex",
    "ebnf", "grammar", "bad_words",
)  # fmt: skip
_LABELS = ("model", "user", "safety_identifier", "prompt_cache_key", "request_id", "session_id")
SETTINGS = (
    *(Field(name, "number") for name in _NUMBERS),
    *(Field(name, "flag") for name in _FLAGS),
    *(Field(name, "json") for name in _JSON),
    *(Field(name, "label", 200) for name in _LABELS),
    Field("stop", "label", 1_000),
    Field("stop[]", "label", 1_000),
    Field("service_tier", "=auto|default|flex|priority|scale|standard"),
    Field("stream_options.include_usage", "flag"),
    Field("stream_options.include_obfuscation", "flag"),
    Field("stream_options.continuous_usage_stats", "flag"),
    Field("tool_choice", "=none|auto|required|any"),
    Field("tool_choice.type", "=function|custom|allowed_tools|tool|auto|any|none"),
    Field("tool_choice.name", "label", 200),
    Field("tool_choice.function.name", "label", 200),
    Field("tool_choice.custom.name", "label", 200),
    Field("tool_choice.allowed_tools", "json"),
    Field("function_call", "=none|auto"),
    Field("function_call.name", "label", 200),
    Field("reasoning_effort", EFFORTS),
    Field("reasoning.effort", EFFORTS),
    Field("reasoning.max_tokens", "number"),
    Field("reasoning.enabled", "flag"),
    Field("reasoning.exclude", "flag"),
    Field("thinking.type", "=enabled|disabled|adaptive|auto"),
    Field("thinking.budget_tokens", "number"),
    Field("verbosity", "=low|medium|high"),
    Field("prompt_cache_retention", "=in_memory|24h|in-memory"),
    Field("modalities[]", "=text"),
    Field("logprobs", "off"),
    *(Field(name, "refused") for name in ("audio", "prediction", "web_search_options", "chat_template", "extra_body",
                                          "prompt_token_ids", "prompt_embeds", "input_ids")),
)  # fmt: skip
"""Everything beside the messages."""

LISTS = {"messages": 10_000, "messages[].content": 1_000, "messages[].tool_calls": 1_000}
REQUEST = FieldTable((*MESSAGE, *SETTINGS), lists=LISTS)
"""An OpenAI chat request."""
