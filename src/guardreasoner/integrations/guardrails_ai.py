"""Guardrails AI: the guard as a validator of strings.

    from guardrails import Guard, OnFailAction
    from guardreasoner.integrations.guardrails_ai import GuardReasonerValidator

    checked = Guard().use(GuardReasonerValidator(on_fail=OnFailAction.EXCEPTION))
    checked.validate(reply, metadata={"prompt": request})

The value is a reply, and `metadata["prompt"]` the request it answers; `says="prompt"` makes the value the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Literal

from guardreasoner.errors import need
from guardreasoner.guards.base import Guard
from guardreasoner.guards.ours import BUNDLED
from guardreasoner.serve.decide import REPLY_TASKS, blocks
from guardreasoner.serve.inprocess import InProcess
from guardreasoner.serve.policy import Rules
from guardreasoner.types import TASKS, Exchange

_base = need("guardrails.validator_base", "guardrails-ai")
NOT_SHOWN = ("text", "steps")
"""Fields of a verdict that stay out of a result's metadata: they may quote what was judged."""


@_base.register_validator(name="guardreasoner/guard", data_type="string")
class GuardReasonerValidator(_base.Validator):  # type: ignore[misc, name-defined]
    """Fails on what the policy blocks."""

    def __init__(
        self,
        guard: Guard | str = BUNDLED,
        says: Literal["response", "prompt"] = "response",
        on_fail: str | Callable[..., Any] | None = None,
        **rules: Any,
    ) -> None:
        """Args:
        guard: a guard, or a name for `load_guard`.
        says: whether the value is a reply or a request.
        on_fail: Guardrails' own action.
        rules: fields of `Rules` (`mode`, `fail_mode`, `message`, ...).
        """
        super().__init__(on_fail=on_fail, says=says)
        self.says, self.rules = says, Rules(**rules)
        self.judging = InProcess(guard, self.rules)

    def _validate(self, value: Any, metadata: Mapping[str, Any]) -> Any:
        text = str(value)
        reply = self.says == "response"
        prompt = str(metadata.get("prompt") or "") if reply else text
        if not text:
            return _base.PassResult()
        verdict = self.judging.judge([Exchange("value", prompt, text if reply else None)])[0]
        shown = {k: v for k, v in asdict(verdict).items() if k not in NOT_SHOWN}
        if not blocks(verdict, REPLY_TASKS if reply else tuple(TASKS)):
            return _base.PassResult(metadata={"guardreasoner": shown})
        judged = verdict.status == "ok" or verdict.notes.get("flagged")
        why = verdict.harm if judged else f"not judged: {verdict.status}"
        return _base.FailResult(
            error_message=f"{self.rules.message}{f' ({why})' if why else ''}",
            fix_value=self.rules.message,
            metadata={"guardreasoner": shown},
        )
