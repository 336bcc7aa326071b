"""Runs in an environment with LangChain: a real agent guarded by nano, in a conversation of twenty turns."""

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from long_talk import CASES, HARM, PAGE, PROSE, SMALL_TALK
from script_guard import BLOCKED, run
from script_langchain import Model, call

from guardreasoner.guards.load import load_guard
from guardreasoner.integrations.langchain import GuardReasonerMiddleware

NANO = load_guard("nano", mode="instant", threads=1)


def message(given):
    if given["role"] == "tool":
        return ToolMessage(given["content"], tool_call_id=given["tool_call_id"])
    if calls := given.get("tool_calls"):
        asked = [{"name": c["function"]["name"], "args": {"where": "library"}, "id": c["id"]} for c in calls]
        return AIMessage("", tool_calls=asked)
    kind = {"user": HumanMessage, "assistant": AIMessage, "system": SystemMessage}[given["role"]]
    return kind(given["content"])


def agent(*says, tools=()):
    model = Model(messages=iter(says), read=[])
    return create_agent(
        model, list(tools), middleware=[GuardReasonerMiddleware(NANO, deadline_s=120, window="last")]
    ), model


def stopped(talk):
    """Whether the model did not read the harm."""
    graph, model = agent("Fine.")
    graph.invoke({"messages": [message(m) for m in talk]})
    return not model.read or HARM not in str(model.read)


def test_harm_in_any_turn_or_tool_result_never_reaches_the_model():
    found = {name: stopped(talk) for name, (_, talk) in CASES.items()}
    assert found == {name: harmful or HARM not in str(talk) for name, (harmful, talk) in CASES.items()}, found


def test_a_harmless_conversation_passes():
    for harmful, talk in CASES.values():
        if not harmful:
            graph, model = agent("Fine.")
            assert graph.invoke({"messages": [message(m) for m in talk]})["messages"][-1].content == "Fine."
            assert len(model.read) == 1


def test_a_page_that_a_tool_fetches_now_is_judged():
    def answers(content):
        @tool
        def look(where: str) -> str:
            """Look something up."""
            return content

        graph, _ = agent(call("library"), "It tells of a bakery and of the weather.", tools=[look])
        talk = [*map(message, SMALL_TALK), HumanMessage("Please sum up the page.")]
        return graph.invoke({"messages": talk})["messages"][-1].content

    assert answers(PROSE) == "It tells of a bakery and of the weather."
    assert answers(PAGE) == BLOCKED


if __name__ == "__main__":
    run(globals())
