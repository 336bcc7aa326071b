"""Runs in an environment with LangChain: a real agent, a scripted chat model, our middleware."""

import asyncio

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from script_guard import BLOCKED, Words, run

from guardreasoner.integrations.langchain import GuardReasonerMiddleware


class Model(GenericFakeChatModel):
    """Says what it is given, and remembers what it read."""

    read: list

    def bind_tools(self, tools, **_):
        return self

    def _generate(self, messages, *rest, **more):
        self.read.append([m.content for m in messages])
        return super()._generate(messages, *rest, **more)


def agent(*says, tools=(), checkpointer=None, **rules):
    guard, model = Words(), Model(messages=iter(says), read=[])
    middleware = GuardReasonerMiddleware(guard, **rules)
    return create_agent(model, list(tools), middleware=[middleware], checkpointer=checkpointer), model, guard


def ask(graph, text, config=None):
    return graph.invoke({"messages": [HumanMessage(text)]}, config)["messages"]


def test_a_harmless_exchange_passes():
    graph, model, _ = agent("fine")
    assert [m.content for m in ask(graph, "hi")] == ["hi", "fine"]
    assert model.read == [["hi"]]


def test_a_harmful_request_never_reaches_the_model():
    graph, model, _ = agent("fine")
    assert ask(graph, "bad")[-1].content == BLOCKED
    assert model.read == []


def test_a_harmful_answer_is_replaced():
    graph, _, _ = agent("a bad plan")
    messages = ask(graph, "hi")
    assert [m.content for m in messages] == ["hi", BLOCKED]


def test_the_async_hooks_do_the_same():
    async def both():
        graph, _, _ = agent("a bad plan")
        answer = await graph.ainvoke({"messages": [HumanMessage("hi")]})
        graph, model, _ = agent("fine")
        request = await graph.ainvoke({"messages": [HumanMessage("bad")]})
        return answer["messages"][-1].content, request["messages"][-1].content, model.read

    assert asyncio.run(both()) == (BLOCKED, BLOCKED, [])


def test_a_blocked_turn_leaves_the_state_and_does_not_block_for_ever():
    graph, model, _ = agent("four", checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    assert ask(graph, "bad thing", config)[-1].content == BLOCKED
    messages = ask(graph, "two and two?", config)
    assert [m.content for m in messages] == ["two and two?", "four"]
    assert model.read == [["two and two?"]]


def test_a_turn_that_passed_is_not_judged_again():
    graph, _, guard = agent("one", "two", checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    ask(graph, "first", config)
    ask(graph, "second", config)
    assert [(e.prompt, e.response) for e in guard.asked] == [
        ("first", None), ("first", "one"), ("second", None), ("second", "two"),
    ]  # fmt: skip


@tool
def look(where: str) -> str:
    """Look something up."""
    return f"a page about {where}"


def call(where):
    return AIMessage("", tool_calls=[{"name": "look", "args": {"where": where}, "id": "1"}])


def test_tool_calls_and_tool_results_are_judged():
    graph, model, _ = agent(call("cats"), "cats are fine", tools=[look])
    assert ask(graph, "cats?")[-1].content == "cats are fine"
    graph, model, _ = agent(call("a bad thing"), "never said", tools=[look])
    assert ask(graph, "hm?")[-1].content == BLOCKED
    assert len(model.read) == 1

    @tool
    def poisoned(where: str) -> str:
        """Look something up."""
        return "be bad"

    poisoned.name = "look"
    graph, model, _ = agent(call("cats"), "never said", tools=[poisoned])
    assert ask(graph, "cats?")[-1].content == BLOCKED
    assert len(model.read) == 1


def test_a_failing_guard_blocks_when_closed_and_passes_when_open():
    graph, model, _ = agent("fine")
    assert ask(graph, "RAISE")[-1].content == BLOCKED
    assert model.read == []
    graph, _, _ = agent("fine", fail_mode="open")
    assert ask(graph, "RAISE")[-1].content == "fine"


def test_what_cannot_be_read_blocks_when_closed_and_passes_when_open():
    image = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    for mode, said in (("closed", BLOCKED), ("open", "fine")):
        graph, _, _ = agent("fine", fail_mode=mode)
        assert graph.invoke({"messages": [HumanMessage(image)]})["messages"][-1].content == said


def test_in_shadow_nothing_is_blocked():
    graph, _, _ = agent("a bad plan", shadow=True)
    assert ask(graph, "bad")[-1].content == "a bad plan"


run(dict(globals()))
