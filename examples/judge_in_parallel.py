"""Judge the request while the model already writes its reply: python examples/judge_in_parallel.py"""

import asyncio

from guardreasoner import load_guard


async def answer(request: str) -> str:
    """Stands for the model that the guard protects."""
    await asyncio.sleep(0.01)
    return "Find its number with `ps`, then use `kill`."


async def main() -> None:
    request = "How do I kill a Python process?"
    with load_guard() as guard:
        asked, reply = await asyncio.gather(guard.acheck(request), answer(request))
        replied = None if asked.flagged else await guard.acheck(request, reply)
    # nothing is shown before both are judged
    print("I would rather not answer that." if replied is None or replied.flagged else reply)


asyncio.run(main())
