"""The cost of a teacher: prices, an estimate before the run, and a cap that is never exceeded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guardreasoner.errors import ConfigError
from guardreasoner.teach.config import SynthesizeConfig
from guardreasoner.teach.question import Messages, messages
from guardreasoner.types import Example

STEP_TOKENS, ANSWER_TOKENS = 35, 60
"""For the estimate: tokens of a step (133.97 characters, paper Table 1) and of headings and block."""
STEPS = 2.2
"""For the estimate: steps of a task (released rows)."""

PRICES = {"gpt-4o-2024-08-06": (2.50, 10.00)}
"""Dollars per million prompt and answer tokens (OpenAI's list of October 2024); others are given in the recipe."""


@dataclass
class CostBudget:
    """Money spent and reserved."""

    price_in: float = 0.0
    """Dollars per prompt token."""
    price_out: float = 0.0
    """Dollars per answer token."""
    cap: float | None = None
    spent: float = 0.0
    set_aside: float = 0.0

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The price of these tokens in dollars."""
        return prompt_tokens * self.price_in + completion_tokens * self.price_out

    def reserve(self, amount: float) -> bool:
        """Reserve the worst-case cost of a call; false = the cap does not allow it."""
        if self.cap is not None and self.spent + self.set_aside + amount > self.cap:
            return False
        self.set_aside += amount
        return True

    def settle(self, reserved: float, spent: float) -> None:
        """Replace a call's reservation by what it really cost."""
        self.set_aside = max(0.0, self.set_aside - reserved)
        self.spent += spent


def budget_of(config: SynthesizeConfig) -> CostBudget:
    """Prices and cap."""
    known = PRICES.get(config.model, (None, None)) if config.base_url is None else (None, None)
    price_in = known[0] if config.price_in is None else config.price_in
    price_out = known[1] if config.price_out is None else config.price_out
    if config.max_cost is not None and (price_in is None or price_out is None):
        raise ConfigError(
            f"synthesize.max_cost needs prices for {config.model}: give price_in and price_out (dollars per million)"
        )
    half = 0.5 if config.teacher == "openai-batch" else 1.0  # OpenAI's batch discount
    return CostBudget((price_in or 0.0) * half / 1e6, (price_out or 0.0) * half / 1e6, config.max_cost)


def worst_case(question: Messages, config: SynthesizeConfig, budget: CostBudget) -> float:
    """The most a call can cost in dollars, counting a token per byte."""
    size = sum(len(m["content"].encode("utf-8", "replace")) + 8 for m in question)
    return budget.cost(size, config.max_tokens)


def forecast(examples: Sequence[Example], config: SynthesizeConfig) -> tuple[int, int, float | None]:
    """Estimate prompt tokens, answer tokens and dollars (None = no price) of a run without retries."""
    prompt = completion = 0.0
    for example in examples:
        prompt += sum(len(m["content"]) for m in messages(example, config.unlabelled)) / 4
        completion += STEPS * STEP_TOKENS * len(example.exchange.tasks) + ANSWER_TOKENS
    budget = budget_of(config)
    priced = budget.price_in > 0 or budget.price_out > 0
    return round(prompt), round(completion), budget.cost(prompt, completion) if priced else None


def forecast_line(examples: Sequence[Example], config: SynthesizeConfig) -> str:
    """The estimate in one sentence."""
    prompt, completion, dollars = forecast(examples, config)
    cost = "price unknown (price_in, price_out)" if dollars is None else f"about ${dollars:,.2f}"
    cap = f", cap ${config.max_cost:,.2f}" if config.max_cost is not None else ""
    return (
        f"{len(examples):,} examples to ask {config.model} about: roughly {prompt:,} prompt and {completion:,} answer "
        f"tokens, {cost}{cap}"
    )
