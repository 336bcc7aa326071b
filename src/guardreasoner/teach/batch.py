"""OpenAI's batch API as a teacher: half the price, answers within a day.

Questions are uploaded as files, one batch each. Answers are read when a batch is done; questions without a usable
answer go into the next batch. `batches.jsonl` records each submission before and after it is made, so a run that was
killed finds all its batches again, even one whose id it never received.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from guardreasoner.engines.http import key_from, plain_url
from guardreasoner.errors import EngineError, EngineOverloaded, need
from guardreasoner.records import Appender
from guardreasoner.teach.ask import TeacherRun
from guardreasoner.teach.config import SynthesizeConfig
from guardreasoner.teach.cost import worst_case
from guardreasoner.teach.question import Messages, Reject, TeacherAnswer, next_move
from guardreasoner.teach.teachers import PROVIDERS, TeacherReply
from guardreasoner.types import Example

MOST_REQUESTS, MOST_BYTES = 50_000, 150_000_000
"""Of one batch (OpenAI: 50,000 requests, 200 MB)."""
TAG = "guardreasoner_submission"
"""Metadata key that finds a batch whose id was lost."""
ENDED = ("completed", "expired", "cancelled", "failed")
STALE_ROUNDS = 3
"""The run ends after this many rounds without a single answer."""

Question = tuple[str, Example, Messages]
"""custom_id, example, messages."""


def client_of(config: SynthesizeConfig) -> Any:
    """The SDK's client."""
    provider = PROVIDERS["openai"]
    required = config.key is not None or config.base_url is None
    key = key_from(config.key or provider.key, required=required)
    openai = need("openai", "openai")
    base_url = plain_url(config.base_url or provider.base_url, "synthesize.base_url")
    return openai.AsyncOpenAI(api_key=key or "none", base_url=base_url, max_retries=6, timeout=config.timeout_s)


async def run_batches(state: TeacherRun, examples: Sequence[Example], folder: Path) -> None:
    """Ask about the examples in batches until each has a trace or a reject, or the cap is reached."""
    openai = need("openai", "openai")
    try:
        async with client_of(state.config) as client:
            with Appender(folder / "batches.jsonl") as ledger:
                await _finish_earlier(client, state, examples, ledger)
                await _rounds(client, state, examples, ledger)
    except openai.AuthenticationError:
        variable = state.config.key or PROVIDERS["openai"].key
        raise EngineError(
            f"the batch server refused the key in {variable}: renew it and run the same command again"
        ) from None
    except (openai.RateLimitError, openai.APIConnectionError, openai.InternalServerError) as error:
        raise EngineOverloaded(
            f"the batch server does not answer ({type(error).__name__}); the same command goes on from here"
        ) from None
    except openai.APIStatusError as error:
        raise EngineError(
            f"the batch server refused a request (HTTP {error.status_code}): check model, base_url"
        ) from None


async def _rounds(client: Any, state: TeacherRun, examples: Sequence[Example], ledger: Appender) -> None:
    stale = 0
    while questions := _open_questions(state, examples):
        before = state.calls
        submitted = []
        for part in _parts(questions, state):
            if not part:
                state.stopped = True
                break
            submitted.append(await _submit(client, part, ledger))
        for batch in submitted:
            await _collect(client, state, examples, batch, ledger)
        if state.stopped and state.calls == before:
            return
        state.stopped = False
        stale = 0 if state.calls > before else stale + 1
        if stale >= STALE_ROUNDS:
            raise EngineError(f"the batch server gave no answer in {STALE_ROUNDS} batches; run the same command later")


def _open_questions(state: TeacherRun, examples: Sequence[Example]) -> list[Question]:
    """Settle the examples that can be settled; return the questions about the rest."""
    questions = []
    for example in examples:
        id_ = example.exchange.id
        if id_ in state.outputs.done:
            continue
        answers = state.kept.get(id_, [])
        move = next_move(
            example,
            answers,
            teacher=state.teacher.name,
            attempts=state.config.attempts,
            unlabelled=state.config.unlabelled,
        )
        if isinstance(move, list):
            questions.append((_custom_id(id_, len(answers) + 1), example, move))
        else:
            state.usable += not isinstance(move, Reject)
            state.outputs.settle(move)
            state.kept.pop(id_, None)
    return questions


def _custom_id(id_: str, attempt: int) -> str:
    return f"{attempt}-{blake2b(id_.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"


def _parts(questions: Sequence[Question], state: TeacherRun) -> Iterator[list[bytes]]:
    """Request lines, split by the limits of a batch and the cost cap. An empty part = the cap allows no more."""
    part: list[bytes] = []
    size = 0
    for custom_id, _, messages in questions:
        if not state.budget.reserve(worst_case(messages, state.config, state.budget)):
            yield part
            if part:
                yield []
            return
        body = {
            "model": state.config.model,
            "messages": messages,
            "max_tokens": state.config.max_tokens,
            "temperature": state.config.temperature,
        } | dict(state.config.options)
        request = {
            "custom_id": custom_id,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {k: v for k, v in body.items() if v is not None},
        }
        line = json.dumps(request).encode() + b"\n"
        if part and (len(part) >= MOST_REQUESTS or size + len(line) > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield part


async def _submit(client: Any, part: Sequence[bytes], ledger: Appender) -> Any:
    submission = uuid.uuid4().hex
    ledger.append({"submission": submission, "requests": len(part)})
    file = await client.files.create(file=("requests.jsonl", b"".join(part)), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={TAG: submission},
    )
    ledger.append({"submission": submission, "batch": batch.id})
    return batch


async def _finish_earlier(client: Any, state: TeacherRun, examples: Sequence[Example], ledger: Appender) -> None:
    """Read the batches that an earlier run submitted but did not read."""
    numbers: dict[str, str | None] = {}
    read = {row["read"] for row in ledger.existing if "read" in row}
    for row in ledger.existing:
        if "submission" in row:
            numbers[row["submission"]] = row.get("batch") or numbers.get(row["submission"])
    if None in numbers.values():
        async for batch in client.batches.list(limit=100):
            submission = (batch.metadata or {}).get(TAG)
            if submission in numbers and numbers[submission] is None:
                numbers[submission] = batch.id
                ledger.append({"submission": submission, "batch": batch.id})
    for number in numbers.values():
        if number is not None and number not in read:
            await _collect(client, state, examples, await client.batches.retrieve(number), ledger)


async def _collect(client: Any, state: TeacherRun, examples: Sequence[Example], batch: Any, ledger: Appender) -> None:
    """Wait for a batch and keep its answers."""
    while batch.status not in ENDED:
        await asyncio.sleep(state.config.poll_s)
        batch = await client.batches.retrieve(batch.id)
    if batch.status == "failed":
        codes = sorted({str(e.code) for e in (batch.errors.data or [])}) if batch.errors else []
        ledger.append({"read": batch.id, "status": batch.status})
        raise EngineError(f"the server refused the batch {batch.id} ({', '.join(codes) or 'no reason given'})")
    waiting = {}
    for example in examples:
        id_ = example.exchange.id
        if id_ not in state.outputs.done:
            attempt = len(state.kept.get(id_, ())) + 1
            waiting[_custom_id(id_, attempt)] = (id_, attempt)
    for file in (batch.output_file_id, getattr(batch, "error_file_id", None)):
        if file:
            content = await client.files.content(file)
            for line in content.content.splitlines():
                _keep(state, json.loads(line), waiting)
    state.budget.set_aside = 0.0  # one batch after the other: what it cost is spent, the rest is free again
    ledger.append({"read": batch.id, "status": batch.status})


def _keep(state: TeacherRun, row: Mapping[str, Any], waiting: dict[str, tuple[str, int]]) -> None:
    """Keep one line of a batch's output; skip answers we already have and errors that may pass."""
    found = waiting.pop(str(row.get("custom_id")), None)
    response = row.get("response") or {}
    status = response.get("status_code")
    if found is None or status is None:
        return
    if status == 200:
        reply = TeacherReply.of(PROVIDERS["openai"].read(response["body"]))
        answer = TeacherAnswer(*found, reply.text, reply.finish, reply.prompt_tokens, reply.completion_tokens)
        state.budget.spent += state.budget.cost(reply.prompt_tokens, reply.completion_tokens)
        state.keep(answer)
    elif status in (400, 413, 422):
        state.keep(TeacherAnswer(*found, "", "invalid"))
