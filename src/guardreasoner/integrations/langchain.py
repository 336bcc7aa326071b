"""LangChain: the guard as agent middleware.

    from langchain.agents import create_agent
    from guardreasoner.integrations.langchain import GuardReasonerMiddleware

    agent = create_agent(model, tools, middleware=[GuardReasonerMiddleware(window="last_n")])

The newest turn (user messages and tool results) is judged before the model is called, and the model's answer (text and
tool calls) before it reaches the caller; `stream_mode="messages"` therefore delivers it in one piece. A turn that
passed is not judged again. A blocked turn is removed from the state the next time, so that it neither reaches the model
nor blocks every later turn. `astream_events` shows the model's raw output; do not give it to users.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from guardreasoner.errors import need
from guardreasoner.guards.base import Guard
from guardreasoner.guards.ours import BUNDLED
from guardreasoner.serve.chat.conversation import (
    Conversation,
    Judge,
    Memory,
    examine,
    exchange_of,
    pieces_of,
    read_messages,
    worst,
)
from guardreasoner.serve.core.budget import RecentEntries
from guardreasoner.serve.decide import REPLY_TASKS, blocks
from guardreasoner.serve.inprocess import InProcess, at_once
from guardreasoner.serve.policy import Rules
from guardreasoner.types import Verdict

_types = need("langchain.agents.middleware.types", "langchain")
_messages = need("langchain_core.messages", "langchain")
Update = dict[str, Any] | None
NOT_STREAMED = "nostream"
"""LangGraph's tag for a model whose tokens `stream_mode="messages"` leaves out (`langgraph.constants.TAG_NOSTREAM`)."""


class GuardReasonerMiddleware(_types.AgentMiddleware):  # type: ignore[misc, name-defined]
    """Ends the run with a message where something is blocked."""

    def __init__(self, guard: Guard | str = BUNDLED, **rules: Any) -> None:
        """Args:
        guard: a guard, or a name for `load_guard`.
        rules: fields of `Rules` (`mode`, `window`, `fail_mode`, `message`, ...).
        """
        super().__init__()
        self.rules = Rules(**rules)
        self.judging = InProcess(guard, self.rules)
        self.memory = Memory("langchain", RecentEntries(50_000, 3600.0))

    @_types.hook_config(can_jump_to=["end"])  # type: ignore[untyped-decorator]
    def before_model(self, state: Any, runtime: Any) -> Update:
        """Judge the newest turn."""
        return at_once(self._before(state["messages"], self.judging.judge_at_once))

    @_types.hook_config(can_jump_to=["end"])  # type: ignore[untyped-decorator]
    async def abefore_model(self, state: Any, runtime: Any) -> Update:
        """Judge the newest turn."""
        return await self._before(state["messages"], self.judging.ajudge)

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Call the model without streaming, and judge its answer before it reaches the caller."""
        response = handler(_unheard(request))
        return at_once(self._answered(request.messages, response, self.judging.judge_at_once))

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Call the model without streaming, and judge its answer before it reaches the caller."""
        response = await handler(_unheard(request))
        return await self._answered(request.messages, response, self.judging.ajudge)

    async def _before(self, messages: Sequence[Any], judge: Judge) -> Update:
        talk = self._read(messages)
        if talk is None:
            return self._end()
        found = await examine(talk, self.rules, self.memory, judge, lone=self.judging.lone)
        gone = [_messages.RemoveMessage(id=messages[p].id) for p in sorted(found.cut)]
        if found.blocked:
            return self._end(gone, found.verdict)
        return {"messages": gone} if gone else None

    async def _answered(self, messages: Sequence[Any], response: Any, judge: Judge) -> Any:
        """The model's response, or the policy's message in its place."""
        answers = response.result if isinstance(response, _types.ModelResponse) else [response]
        talk = self._read([*messages, *answers])
        if talk is None:
            return _messages.AIMessage(self.rules.message)
        if not talk.turns or not talk.turns[-1].response:
            return response
        turn, whole = talk.turns[-1], exchange_of(talk, len(talk.turns) - 1, self.rules)
        turn = replace(turn, parts=tuple(p for p in turn.parts if p.side == "out"))
        verdicts = await judge([exchange for exchange, _ in pieces_of(turn, whole, lone=self.judging.lone)])
        stops = [v for v in verdicts if blocks(v, REPLY_TASKS)]
        if stops:
            return _messages.AIMessage(self.rules.answer(worst(stops)))
        self.memory.keep(whole.prompt, whole.response, verdicts[0])
        return response

    def _read(self, messages: Sequence[Any]) -> Conversation | None:
        """The state as turns; None = something in it cannot be judged and must not pass."""
        talk = read_messages(
            _messages.convert_to_openai_messages(list(messages), text_format="block"), self.rules.trusted_roles
        )
        if talk.unread and self.rules.stops_unread:
            return None
        if talk.unread:
            self.judging.count_unread(len(talk.unread))
        return talk

    def _end(self, before: Sequence[Any] = (), verdict: Verdict | None = None) -> dict[str, Any]:
        """Stop with the policy's message."""
        said = self.rules.message if verdict is None else self.rules.answer(verdict)
        return {"jump_to": "end", "messages": [*before, _messages.AIMessage(said)]}


def _unheard(request: Any) -> Any:
    """The same request, of a model whose tokens are not streamed to the agent's caller while it writes them."""
    return request.override(model=_muted(request.model))


def _muted(model: Any) -> Any:
    fields = getattr(type(model), "model_fields", {})
    if "tags" in fields:
        return model.model_copy(update={"tags": [*(model.tags or ()), NOT_STREAMED]})
    if "bound" in fields:
        return model.model_copy(update={"bound": _muted(model.bound)})
    return model.with_config(tags=[NOT_STREAMED])
