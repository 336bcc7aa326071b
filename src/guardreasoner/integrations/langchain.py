"""LangChain: the guard as agent middleware.

    from langchain.agents import create_agent
    from guardreasoner.integrations.langchain import GuardReasonerMiddleware

    agent = create_agent(model, tools, middleware=[GuardReasonerMiddleware("nano", window="last_n")])

Before the model is called the newest turn is judged (user messages and tool results), after it what it answered (text
and tool calls). A turn that passed is not judged again; one that was blocked is taken out of the state the next time,
so that it neither reaches the model nor blocks every later turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from guardreasoner.errors import need
from guardreasoner.guards.base import Guard
from guardreasoner.serve.chat.conversation import Conversation, Judge, Memory, examine, exchange_of, read_messages
from guardreasoner.serve.core.budget import Recent
from guardreasoner.serve.inprocess import InProcess, at_once
from guardreasoner.serve.policy import REPLY_TASKS, Rules, blocks

_types = need("langchain.agents.middleware.types", "langchain")
_messages = need("langchain_core.messages", "langchain")
Update = dict[str, Any] | None


class GuardReasonerMiddleware(_types.AgentMiddleware):  # type: ignore[misc, name-defined]
    """Ends the run with a message where something is blocked."""

    def __init__(self, guard: Guard | str = "nano", **rules: Any) -> None:
        """Args:
        guard: a guard, or a name for `load_guard`.
        rules: fields of `Rules` (`mode`, `window`, `fail_mode`, `message`, ...).
        """
        super().__init__()
        self.rules = Rules(**rules)
        self.judging = InProcess(guard, self.rules)
        self.memory = Memory("langchain", Recent(50_000, 3600.0))

    @_types.hook_config(can_jump_to=["end"])  # type: ignore[untyped-decorator]
    def before_model(self, state: Any, runtime: Any) -> Update:
        """Judge the newest turn."""
        return at_once(self._before(state["messages"], self.judging.judge_at_once))

    @_types.hook_config(can_jump_to=["end"])  # type: ignore[untyped-decorator]
    async def abefore_model(self, state: Any, runtime: Any) -> Update:
        """Judge the newest turn."""
        return await self._before(state["messages"], self.judging.ajudge)

    @_types.hook_config(can_jump_to=["end"])  # type: ignore[untyped-decorator]
    def after_model(self, state: Any, runtime: Any) -> Update:
        """Judge the answer."""
        return at_once(self._after(state["messages"], self.judging.judge_at_once))

    @_types.hook_config(can_jump_to=["end"])  # type: ignore[untyped-decorator]
    async def aafter_model(self, state: Any, runtime: Any) -> Update:
        """Judge the answer."""
        return await self._after(state["messages"], self.judging.ajudge)

    async def _before(self, messages: Sequence[Any], judge: Judge) -> Update:
        talk = self._read(messages)
        if talk is None:
            return self._end()
        found = await examine(talk, self.rules, self.memory, judge)
        gone = [_messages.RemoveMessage(id=messages[p].id) for p in sorted(found.cut)]
        if found.blocked:
            return self._end(gone)
        return {"messages": gone} if gone else None

    async def _after(self, messages: Sequence[Any], judge: Judge) -> Update:
        talk = self._read(messages)
        if talk is None:
            return self._end(replacing=messages[-1])
        if not talk.turns or not talk.turns[-1].response:
            return None
        exchange = exchange_of(talk, len(talk.turns) - 1, self.rules)
        verdict = (await judge([exchange]))[0]
        if blocks(verdict, REPLY_TASKS):
            return self._end(replacing=messages[-1])
        self.memory.keep(exchange.prompt, exchange.response, verdict)
        return None

    def _read(self, messages: Sequence[Any]) -> Conversation | None:
        """The state as turns; None = something in it cannot be judged and must not pass."""
        talk = read_messages(_messages.convert_to_openai_messages(list(messages)), self.rules.trusted_roles)
        if talk.unread and self.rules.fail_mode == "closed" and not self.rules.shadow:
            return None
        if talk.unread:
            self.judging.count_unread(len(talk.unread))
        return talk

    def _end(self, before: Sequence[Any] = (), replacing: Any = None) -> dict[str, Any]:
        """Stop with the policy's message, in place of an answer that must not be read."""
        same = {"id": replacing.id} if replacing is not None else {}
        return {"jump_to": "end", "messages": [*before, _messages.AIMessage(self.rules.message, **same)]}
