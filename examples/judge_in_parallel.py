"""Judge request and reply in an application that has an event loop: python examples/judge_in_parallel.py"""

import asyncio

from guardreasoner import Exchange, load_guard


async def answer(request: str) -> str:
    """Stands for the model that the guard protects."""
    await asyncio.sleep(0.01)
    return "Find its number with `ps`, then use `kill`."


async def main() -> None:
    guard = load_guard("nano", mode="instant")
    request = "How do I kill a Python process?"
    # The request is judged while the model is already writing; nothing is shown before both are done.
    asked, reply = await asyncio.gather(guard.ajudge([Exchange("request", request)]), answer(request))
    if asked[0].flagged:
        print("I would rather not answer that.")
        return
    replied = await guard.ajudge([Exchange("reply", request, reply)])
    print("(withheld)" if replied[0].flagged else reply)


asyncio.run(main())
