"""Parts of the server by themselves: what is judged next, may be spent, is remembered, and how messages are read."""

import asyncio
import json
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.records import dumps, to_dict
from guardreasoner.serve.access.limits import Overloaded, Refused
from guardreasoner.serve.access.prometheus import Metrics
from guardreasoner.serve.access.protocol import JoiningTransport
from guardreasoner.serve.chat.conversation import read_messages
from guardreasoner.serve.chat.reply import FINISHES, SPOKEN_FIELDS, read_reply, said
from guardreasoner.serve.core.budget import Allowance, Escalations, RecentEntries
from guardreasoner.serve.core.frames import ChildSocket, Event, JudgeJob, pack
from guardreasoner.serve.core.judge import Caller, Core
from guardreasoner.serve.core.queue import ExchangeQueue, QueuedExchange
from guardreasoner.serve.core.worker import Frames
from guardreasoner.serve.policy import Limits, Policy, ReasoningBudget
from guardreasoner.serve.service import whole
from guardreasoner.types import Exchange, Labels, Message, Step, Task, Usage, Verdict, field_names


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_allowance_refills_evenly_and_does_not_add_up():
    clock = Clock()
    bucket = Allowance(6, 60, clock)
    for _ in range(6):
        assert bucket.left() >= 1
        bucket.spend()
    assert bucket.left() < 1
    clock.now = 10
    assert bucket.left() == pytest.approx(1)
    clock.now = 10_000
    assert bucket.left() == 6
    assert Allowance(None, 60, clock).left() == float("inf")
    assert Allowance(0, 60, clock).left() == 0


def test_what_one_key_may_not_spend_is_not_taken_from_the_others():
    clock = Clock()
    budget = Escalations(ReasoningBudget(per_key=1, total=2, seconds=60), clock)
    assert [budget.take(k) for k in ("a", "a", "a", "b", "c")] == [True, False, False, True, False]


def test_memory_is_bounded_in_number_and_time():
    clock = Clock()
    recent = RecentEntries(2, 10, clock)
    for key in "abc":
        recent.put(key, key)
    assert [recent.get(k) for k in "abc"] == [None, "b", "c"]
    recent.get("b")
    recent.put("d", "d")
    assert [recent.get(k) for k in "bcd"] == ["b", None, "d"]
    clock.now = 11
    assert recent.get("d") is None
    nothing = RecentEntries(0, 10, clock)
    nothing.put("a", 1)
    assert len(nothing) == 0


def item(characters: int, left: float = 2.0, mode="instant", **more) -> QueuedExchange:
    loop = asyncio.get_running_loop()
    return QueuedExchange(Exchange("x", "y" * characters), mode, time.monotonic() + left, loop.create_future(), **more)


def waiting(rate: float, **limits) -> ExchangeQueue:
    """A queue that has learned a rate, in seconds per padded character."""
    made = ExchangeQueue(Limits(**limits), 2.0)
    learned = item(600)
    made.learn([learned], rate * learned.characters)
    return made


async def picked(queue: ExchangeQueue, *items: QueuedExchange) -> list[QueuedExchange]:
    for one in items:
        queue.add(one)
    return await queue.next()


def test_a_long_exchange_waits_while_short_ones_would_miss_their_deadline_behind_it():
    async def run():
        queue = waiting(0.0001)  # 600 characters: 0.1 s; 12,000: 1.24 s
        long, short = item(12_000, 1.5), item(200, 1.0)
        assert await picked(queue, long, short) == [short]
        queue = waiting(0.0001)
        long, patient = item(12_000, 1.5), item(200, 2.0)
        assert await picked(queue, long, patient) == [long]

    asyncio.run(run())


def test_a_batch_is_one_mode_bounded_in_size_and_padded_length():
    async def run():
        queue = waiting(0.0, batch=3, batch_characters=4000)
        a, b, c, d = (item(100) for _ in range(4))
        assert await picked(queue, a, b, c, d) == [a, b, c]
        queue = waiting(0.0, batch_characters=4000)
        a, other, long, b = item(100), item(100, mode="full"), item(3000), item(100)
        assert await picked(queue, a, other, long, b) == [a, b]

    asyncio.run(run())


def test_a_batch_that_has_much_time_takes_no_more_than_half_of_the_shortest_deadline():
    async def run():
        queue = waiting(0.0004)  # 600 characters: 0.4 s
        first, second, third = (item(600, 10.0) for _ in range(3))
        assert await picked(queue, first, second, third) == [first, second]

    asyncio.run(run())


def test_what_failed_in_a_batch_and_what_streams_its_steps_goes_alone():
    async def run():
        queue = waiting(0.0)
        alone, a = item(100, 1.0, alone=True), item(100)
        assert await picked(queue, alone, a) == [alone]
        assert await queue.next() == [a]
        stream = item(100, 1.0, on_step=lambda *_: None)
        assert await picked(queue, stream, item(100)) == [stream]

    asyncio.run(run())


def test_one_hiccup_is_not_believed_and_a_slowdown_is():
    async def run():
        queue = waiting(0.0001)
        usual = queue.estimate([item(600)])
        for _ in range(4):
            queue.learn([item(600)], usual)
        queue.learn([item(600)], 100 * usual)
        assert queue.estimate([item(600)]) == pytest.approx(usual)
        queue.learn([item(600)], 50 * usual)
        assert queue.estimate([item(600)]) == pytest.approx(50 * usual)

    asyncio.run(run())


def test_what_is_cancelled_or_too_late_is_never_picked():
    async def run():
        queue = waiting(0.0)
        gone, late, good = item(100), item(100, -0.1), item(100)
        gone.future.cancel()
        assert await picked(queue, gone, late, good) == [good]

    asyncio.run(run())


def test_what_was_answered_while_the_guard_was_away_keeps_nobody_out():
    async def run():
        queue = waiting(0.0005, queue=5)
        for left in (-1.0, -1.0, -1.0, -1.0, 2.0):
            queue.add(item(2_000, left=left))
        queue.items[-1].future.cancel()
        queue.admit(1, 500, mode="instant", deadline=time.monotonic() + 2)
        assert queue.items == []

    asyncio.run(run())


def test_a_request_is_refused_by_number_and_by_expected_wait():
    async def run():
        queue = waiting(0.0, queue=2)
        for _ in range(2):
            queue.add(item(100))
        with pytest.raises(Overloaded):
            queue.admit(1, 500, mode="instant", deadline=time.monotonic() + 2)
        queue = waiting(0.0005)  # 500 characters: 0.25 s
        now = time.monotonic()
        queue.admit(1, 500, mode="instant", deadline=now + 2)
        for _ in range(5):
            queue.add(item(100))
        with pytest.raises(Overloaded) as caught:
            queue.admit(1, 500, mode="instant", deadline=now + 2)
        assert 1 <= int(caught.value.headers["retry-after"]) <= 3
        queue.admit(1, 500, mode="instant", deadline=now + 10)

    asyncio.run(run())


KEYS = (
    "role", "content", "type", "text", "tool_calls", "function", "name", "arguments", "choices", "delta", "message",
    "finish_reason", "index", "usage", "zz",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
ROLES = st.sampled_from(["user", "assistant", "system", "tool", "developer", "function"])
MESSAGES = st.lists(JSON | st.fixed_dictionaries({"role": ROLES, "content": JSON | st.text()}), max_size=8)


@given(MESSAGES)
def test_reading_messages_never_raises_and_loses_no_text(messages):
    read = read_messages(messages)
    held = "\n".join(f"{t.prompt}\n{t.response or ''}" for t in (*read.turns, *read.alone))
    places = [p for t in (*read.turns, *read.alone) for p in t.places]
    assert len(places) == len(set(places))
    for place, message in enumerate(messages):
        unread = any(u == f"messages[{place}]" or u.startswith(f"messages[{place}]") for u in read.unread)
        text = message.get("content") if isinstance(message, dict) else None
        if not unread and isinstance(text, str) and text:
            assert text in held
        if not isinstance(message, dict):
            assert unread


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5), st.sampled_from(["message", "delta"]))
def test_a_reply_is_read_or_refused_and_keeps_no_text_that_is_not_said(reply, side):
    try:
        heard = read_reply(reply, side)
    except Refused:
        return
    assert set(heard.body) <= {"id", "object", "model", "system_fingerprint", "created", "choices", "usage"}
    for choice in heard.body["choices"]:
        assert set(choice) == {"index", side, "finish_reason"}
        assert choice["finish_reason"] in (None, *FINISHES)
        assert set(choice[side]) <= {"role", *SPOKEN_FIELDS, "tool_calls", "function_call"}
        for name in SPOKEN_FIELDS:
            assert (choice[side].get(name) or "") == said(choice[side]).get(name, "")


def test_a_verdict_on_the_wire_is_what_a_file_would_hold():
    steps = (Step(Task.refusal, "a"), Step(None, "b"))
    verdict = Verdict(
        "x", "g", "full", "ok", Labels("harmful"), steps=steps, notes={"n": [1]}, usage=Usage(1, 2, 3.5, 4)
    )
    assert json.loads(dumps(whole(verdict))) == json.loads(dumps(to_dict(verdict)))
    assert tuple(whole(verdict)) == field_names(Verdict)


def test_turns_follow_who_spoke_and_tool_calls_hang_together():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    talk = [
        {"role": "system", "content": "rules"}, {"role": "user", "content": "a"}, {"role": "user", "content": "b"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "t"}, {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]  # fmt: skip
    read = read_messages(talk)
    assert [(t.prompt, t.response) for t in read.turns] == [("a\nb", "[tool call] f({})"), ("t", "c"), ("d", None)]
    assert [t.prompt for t in read.alone] == ["rules"]
    assert [read.chain(i) for i in range(3)] == [(0, 1), (0, 1), (2,)]
    assert read.unread == ()


JOB = JudgeJob(7, (Exchange("x", "p", "r", (Message("user", "earlier"),), "web"),), "full", 12.5, steps=True)
DONE = Event(
    "done",
    7,
    (Verdict("x", "g", "full", "ok", Labels("harmful"), {"prompt_harm": 0.9}, True, "fraud", True, "open",
             (Step(Task.refusal, "s"), Step(None, "t")), "text", {"n": [1]}, Usage(1, 2, 3.5, 4), "why"),),
    idle=True,
)  # fmt: skip


def test_what_goes_to_the_guards_process_and_back_arrives_as_it_was():
    heard = []
    frames = Frames(heard.append)
    sent = pack(DONE) + pack(Event("idle", 7))
    for place in range(0, len(sent), 100):
        frames.data_received(sent[place : place + 100])
    assert heard == [DONE, Event("idle", 7)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = ChildSocket(theirs)
        ours.sendall(pack(JOB) + pack("next"))
        assert line.next() == JOB
        assert line.stirs()  # what was read ahead counts
        assert line.next() == "next"
        assert not line.stirs()
        ours.close()
        assert line.stirs()
        with pytest.raises(EOFError):
            line.next()


class Transport:
    def __init__(self) -> None:
        self.did: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.did.append(data)

    def close(self) -> None:
        self.did.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.did


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


def test_the_head_of_an_answer_goes_out_with_its_body_and_waits_for_nothing_else():
    async def did(*writes: bytes, close: bool = False) -> list[bytes | str]:
        transport = Transport()
        joining = JoiningTransport(transport, asyncio.get_running_loop())
        for data in writes:
            joining.write(data)
        if close:
            joining.close()
            assert joining.is_closing()
        await asyncio.sleep(0)
        return transport.did

    assert asyncio.run(did(HEAD, b"{}", b"more")) == [HEAD + b"{}", b"more"]
    assert asyncio.run(did(HEAD)) == [HEAD]
    assert asyncio.run(did(HEAD, close=True)) == [HEAD, "closed"]
    assert asyncio.run(did(HEAD, b"{}", HEAD, b"[]")) == [HEAD + b"{}", HEAD + b"[]"]
    assert asyncio.run(did(b"4\r\ndata\r\n")) == [b"4\r\ndata\r\n"]


def test_who_asks_again_as_soon_as_it_is_answered_does_not_wait_for_what_has_been_judged():
    async def run() -> None:
        queue = waiting(rate=0.001)
        await picked(queue, item(600, left=3))
        with pytest.raises(Overloaded):
            queue.admit(1, 1000, mode="instant", deadline=time.monotonic() + 1)
        queue.judged()
        queue.admit(1, 1000, mode="instant", deadline=time.monotonic() + 1)

    asyncio.run(run())


class Desk:
    """In the place of a worker: every job is answered in the next turn of the loop."""

    name, ready, starts = "desk", True, 1

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def free(self) -> None:
        pass

    def hand_over(self, job: JudgeJob, on_verdicts, on_step=None) -> None:
        loop = asyncio.get_running_loop()
        self.said.append(f"handed {job.exchanges[0].id}")
        self.future = loop.create_future()

        def answer() -> None:
            on_verdicts(tuple(Verdict(e.id, self.name, job.mode, "ok") for e in job.exchanges))
            self.future.set_result(time.monotonic())

        loop.call_soon(answer)

    async def answered(self, job: JudgeJob) -> float:
        return await self.future


def test_the_guard_gets_what_waits_before_the_last_answer_is_written():
    said: list[str] = []

    async def ask(core: Core, name: str) -> None:
        await core.judge([Exchange(name, "hi")], Caller("judge", "anyone"))
        said.append(f"answered {name}")

    async def run() -> None:
        core = Core(Desk(said), Policy(limits=Limits(batch=1)), Metrics())
        core.start()
        await asyncio.gather(ask(core, "a"), ask(core, "b"))
        await core.close()

    asyncio.run(run())
    assert said == ["handed a", "handed b", "answered a", "answered b"]
