"""A FastAPI chat with the guard in front of the model and behind it: uvicorn --app-dir examples fastapi_chat:app

curl -s localhost:8000/chat -H 'content-type: application/json' -d '{"text": "How do I kill a Python process?"}'
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel

from guardreasoner import load_guard

DECLINED = "I would rather not answer that."


class Message(BaseModel):
    text: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One guard for all requests, loaded once: it is safe to share."""
    with load_guard() as app.state.guard:
        yield


app = FastAPI(lifespan=lifespan)


async def model(text: str) -> str:
    """Stands for the model that the guard protects."""
    return "Find its number with `ps`, then use `kill`."


@app.post("/chat")
async def chat(message: Message) -> dict[str, str]:
    guard = app.state.guard
    if (await guard.acheck(message.text)).flagged:
        return {"reply": DECLINED}
    reply = await model(message.text)
    verdict = await guard.acheck(message.text, reply)
    return {"reply": DECLINED if verdict.flagged else reply}
