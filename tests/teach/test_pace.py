"""Rates learned from headers, in order and on time; money set aside before it is spent."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from guardreasoner.engines.http import seconds
from guardreasoner.errors import ConfigError
from guardreasoner.teach import pace
from guardreasoner.teach.config import SynthesizeConfig
from guardreasoner.teach.cost import CostBudget, budget_of, forecast, worst_case
from guardreasoner.teach.pace import Pace, RateLimit
from guardreasoner.types import Example, Exchange, Labels


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.waited = 0.0

    def monotonic(self) -> float:
        return 1000 + self.waited

    async def sleep(self, seconds: float) -> None:
        self.waited += max(seconds, 1e-9)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    monkeypatch.setattr(pace.asyncio, "sleep", made.sleep)
    return made


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2.0), ("17ms", 0.017), ("6m0s", 360.0), ("1h2m3.5s", 3723.5), ("", None), ("soon", None), ("-3", 0.0)],
)
def test_durations_are_read_in_every_form_that_servers_send(text, value):
    assert seconds(text) == value


def test_dates_are_read_as_the_time_until_them():
    in_a_minute = datetime.now(UTC) + timedelta(seconds=60)
    assert seconds(in_a_minute.strftime("%Y-%m-%dT%H:%M:%SZ")) == pytest.approx(60, abs=2)
    assert seconds(in_a_minute.strftime("%a, %d %b %Y %H:%M:%S GMT")) == pytest.approx(60, abs=2)


def test_an_unlimited_bucket_never_waits_and_a_limited_one_waits_for_its_rate(clock):
    assert RateLimit().wait(1e9) == 0
    bucket = RateLimit(600, at=clock.monotonic())
    assert bucket.wait(600) == 0
    bucket.level = 0
    assert bucket.wait(1) == pytest.approx(0.1)
    assert bucket.wait(10_000) == pytest.approx(60)


def test_a_limit_that_is_whole_again_only_tomorrow_is_not_taken_for_a_limit_per_minute():
    bucket = RateLimit()
    bucket.learn(10_000, 9_000, 86_400, None)
    assert bucket.per_minute == pytest.approx(1_000 / 86_400 * 60, rel=0.5)
    bucket.learn(500, 499, 0.12, None)
    assert bucket.per_minute == 500


def test_the_recipes_own_limit_is_never_raised_by_the_server():
    bucket = RateLimit(60)
    bucket.learn(5_000, 4_000, None, 60)
    assert bucket.per_minute == 60


@pytest.mark.parametrize("family", ["x-ratelimit-{}-requests", "anthropic-ratelimit-requests-{}"])
def test_calls_wait_once_the_server_says_that_nothing_is_left(family, clock):
    async def run():
        calls = Pace()
        for _ in range(20):
            await calls.turn(100)
        free = clock.waited
        calls.learn({family.format("limit"): "600", family.format("remaining"): "1"})
        for _ in range(4):
            await calls.turn(100)
        return free, clock.waited

    assert asyncio.run(run()) == (0, pytest.approx(0.3))  # one is left, then one every tenth of a second


def test_broken_headers_are_passed_over_and_a_hold_holds_everybody(clock):
    async def run():
        calls = Pace()
        calls.learn({"x-ratelimit-limit-requests": "many", "x-ratelimit-remaining-requests": "1"})
        calls.hold(0.2)
        await asyncio.gather(*(calls.turn(1) for _ in range(5)))

    asyncio.run(run())
    assert clock.waited == pytest.approx(0.2)


def test_a_reservation_that_would_break_the_cap_is_refused_until_another_is_settled():
    budget = CostBudget(1e-6, 2e-6, cap=1.0)
    assert budget.cost(1000, 500) == pytest.approx(0.002)
    assert budget.reserve(0.6)
    assert not budget.reserve(0.6)
    budget.settle(0.6, 0.1)
    assert budget.reserve(0.6)
    assert not budget.reserve(0.31)
    assert budget.spent == pytest.approx(0.1)


def test_a_cap_without_a_price_is_refused_and_the_batch_price_is_half():
    with pytest.raises(ConfigError, match="price_in"):
        budget_of(SynthesizeConfig(teacher="openai", model="my-model", max_cost=1))
    with pytest.raises(ConfigError, match="price_in"):
        budget_of(SynthesizeConfig(teacher="openai", base_url="http://localhost:1/v1", max_cost=1))
    full = budget_of(SynthesizeConfig(teacher="openai", max_cost=1))
    half = budget_of(SynthesizeConfig(teacher="openai-batch", max_cost=1))
    assert (full.price_in, full.price_out) == (2.5e-6, 1e-5)
    assert half.price_out == full.price_out / 2


def test_the_worst_case_is_above_the_estimate():
    example = Example(Exchange("1", "how do I bake bread?", "Knead the dough."), Labels("unharmful"))
    config = SynthesizeConfig(teacher="openai")
    prompt, completion, dollars = forecast([example], config)
    assert dollars == pytest.approx(budget_of(config).cost(prompt, completion))
    question = [{"role": "user", "content": "é" * 1000}]
    assert worst_case(question, config, budget_of(config)) == pytest.approx((2008 * 2.5 + 2048 * 10) / 1e6)
