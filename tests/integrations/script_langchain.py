"""Runs in an environment with LangChain: a real agent, a scripted chat model, our middleware."""

import asyncio
from dataclasses import replace

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from script_guard import BLOCKED, Diluted, Words, run

from guardreasoner.integrations.langchain import GuardReasonerMiddleware


class Model(GenericFakeChatModel):
    """Says what it is given, and remembers what it read."""

    read: list

    def bind_tools(self, tools, **_):
        return self

    def _generate(self, messages, *rest, **more):
        self.read.append([m.content for m in messages])
        return super()._generate(messages, *rest, **more)


def agent(*says, tools=(), checkpointer=None, guard=None, **rules):
    guard, model = guard or Words(), Model(messages=iter(says), read=[])
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
    assert list(dict.fromkeys((e.prompt, e.response) for e in guard.asked)) == [
        ("first", None), ("first", "one"), ("", "one"), ("second", None), ("second", "two"), ("", "two"),
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


def test_nothing_of_an_answer_is_streamed_before_it_is_judged():
    async def streamed(says):
        graph, _, _ = agent(says)
        return [c.content async for c, _ in graph.astream({"messages": [HumanMessage("hi")]}, stream_mode="messages")]

    assert "".join(asyncio.run(streamed("a bad plan of many words"))).endswith(BLOCKED)
    assert "bad" not in "".join(asyncio.run(streamed("a bad plan of many words")))
    assert "".join(asyncio.run(streamed("a fine plan"))).endswith("a fine plan")


def test_blocks_of_reasoning_are_read():
    for summary in ([], [{"type": "summary_text", "text": "hm"}]):
        parts = [{"type": "reasoning", "id": "rs_1", "summary": summary}, {"type": "text", "text": "fine"}]
        graph, _, _ = agent(AIMessage(parts))
        assert ask(graph, "hi")[-1].text == "fine"
    parts = [{"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "a bad plan"}]}]
    graph, _, _ = agent(AIMessage([*parts, {"type": "text", "text": "fine"}]))
    assert ask(graph, "hi")[-1].content == BLOCKED


BEFORE = ["How do I bake bread today?", "Mix flour and water, let it rise, then bake it."]


def test_harm_is_found_behind_a_history_and_in_one_part_of_many():
    graph, model, _ = agent("never said", guard=Diluted())
    talk = [HumanMessage(BEFORE[0]), AIMessage(BEFORE[1]), HumanMessage("do a bad thing")]
    assert graph.invoke({"messages": talk})["messages"][-1].content == BLOCKED
    assert model.read == []
    parts = [{"type": "text", "text": text} for text in (*BEFORE, "do a bad thing")]
    graph, model, _ = agent("never said", guard=Diluted())
    assert graph.invoke({"messages": [HumanMessage(parts)]})["messages"][-1].content == BLOCKED
    graph, _, _ = agent("a bad plan", guard=Diluted())
    assert ask(graph, BEFORE[1])[-1].content == BLOCKED


def test_harm_is_found_in_one_tool_result_among_others():
    @tool
    def page(where: str) -> str:
        """Read a page."""
        return "be bad" if where == "cats" else " ".join(BEFORE)

    calls = [{"name": "page", "args": {"where": w}, "id": w} for w in ("dogs", "cats")]
    graph, model, _ = agent(AIMessage("", tool_calls=calls), "never said", tools=[page], guard=Diluted())
    assert ask(graph, "pets?")[-1].content == BLOCKED
    assert len(model.read) == 1


def test_somebody_in_a_crisis_reads_a_text_of_the_operators_own():
    class Kind(Words):
        def one(self, exchange):
            return replace(super().one(exchange), kinds={"self-harm": 0.9 if "hurt" in exchange.prompt else 0.0})

    graph, model, _ = agent(
        "never said", guard=Kind(), support="Call 555 0100.", kinds=[{"match": "self-harm", "action": "support"}]
    )
    assert ask(graph, "I want to hurt myself")[-1].content == "Call 555 0100."
    assert model.read == []


if __name__ == "__main__":
    run(dict(globals()))
