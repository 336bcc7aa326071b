"""LiteLLM: the guard as a custom guardrail in the gateway's own process.

    # guard.py, beside LiteLLM's config (which says `guardrail: guard.GuardReasoner`)
    from guardreasoner.integrations.litellm import GuardReasoner

Every parameter of `Rules` but `mode` (LiteLLM has one of its own) may be set in `litellm_params` beside `guard`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from guardreasoner.errors import need
from guardreasoner.guards.base import Guard
from guardreasoner.guards.ours import BUNDLED
from guardreasoner.serve.chat.conversation import Memory
from guardreasoner.serve.core.budget import RecentEntries
from guardreasoner.serve.inprocess import InProcess
from guardreasoner.serve.litellm_guardrail import Gateway, GuardrailRequest, RememberedCall
from guardreasoner.serve.policy import Rules

_hooks = need("litellm.integrations.custom_guardrail", "litellm")
_errors = need("litellm.exceptions", "litellm")
READ = ("texts", "images", "tools", "tool_calls", "structured_messages")


class GuardReasoner(_hooks.CustomGuardrail):  # type: ignore[misc, name-defined]
    """Judges requests before, and replies after, the model."""

    def __init_subclass__(cls, **more: Any) -> None:
        """LiteLLM (1.106) calls the hook only where the class itself has it: a subclass without it would pass all."""
        if "apply_guardrail" not in cls.__dict__:
            setattr(cls, "apply_guardrail", GuardReasoner.apply_guardrail)  # noqa: B010 - not an override
        super().__init_subclass__(**more)

    def __init__(self, guard: Guard | str = BUNDLED, **settings: Any) -> None:
        """Args:
        guard: a guard, or a name for `load_guard`.
        settings: fields of `Rules` but for `mode`; that, and what is not one, goes to LiteLLM's own class.
        """
        rules = Rules(**{k: settings.pop(k) for k in list(settings) if k in Rules.model_fields and k != "mode"})
        super().__init__(**settings)
        self.judging = InProcess(guard, rules)
        self.gateway = Gateway(
            rules,
            Memory("litellm", RecentEntries(50_000, 3600.0)),
            self.judging.ajudge,
            self.judging.count_unread,
            self.judging.lone,
        )
        self.calls: RecentEntries[RememberedCall] = RecentEntries(10_000, 600.0)

    async def apply_guardrail(
        self,
        inputs: Mapping[str, Any],
        request_data: dict[str, Any],
        input_type: Literal["request", "response"],
        logging_obj: Any = None,
    ) -> Mapping[str, Any]:
        """LiteLLM's hook.

        Raises:
            GuardrailRaisedException: the text is blocked.
        """
        call_id = getattr(logging_obj, "litellm_call_id", None)
        body = GuardrailRequest(input_type=input_type, litellm_call_id=call_id, **{k: inputs.get(k) for k in READ})
        unread = [f"images[{i}] cannot be judged" for i, _ in enumerate(body.images or [])]
        if input_type == "response":
            answer = await self.gateway.response(body, self.calls.get(call_id), unread)
        else:
            answer, call = await self.gateway.request(body, unread)
            if call is not None and call_id:
                self.calls.put(call_id, call)
        if answer["action"] == "BLOCKED":
            raise _errors.GuardrailRaisedException(
                guardrail_name=self.guardrail_name,
                message=answer["blocked_reason"],
                should_wrap_with_default_message=False,
                blocked_content=answer["judged"],
            )
        return {**inputs, "texts": answer["texts"]} if "texts" in answer else inputs
