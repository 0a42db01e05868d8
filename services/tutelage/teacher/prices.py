"""What work costs, in tokens and in money, and the most that a request can come to before it is done.

Money is counted in whole picodollars (1e-12 USD), so that sums are exact: a dollar a million tokens is 10**6 a token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage_client.wire import GenerateRequest, Prices, Prompt, ScoreGroup, Usage

PICO = 10**12
_TEMPLATE_TOKENS = 64  # what a chat template may add to a message


@dataclass(frozen=True, slots=True)
class Cost:
    """tokens: those that went through the model and those that were written, as in the budget of a run's spec"""

    tokens: int = 0
    picousd: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.tokens + other.tokens, self.picousd + other.picousd)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.tokens - other.tokens, self.picousd - other.picousd)


def cost(prices: Prices, usage: Usage) -> Cost:
    input_, cached, output = (round(usd * PICO / 10**6) for usd in (prices.input, prices.cached, prices.output))
    return Cost(
        usage.forward_tokens + usage.generated_tokens,
        usage.forward_tokens * input_ + usage.cached_tokens * cached + usage.generated_tokens * output,
    )


def most_scored(groups: Sequence[ScoreGroup]) -> int:
    """The most tokens that scoring puts through the model: nothing is shared, and no last token is spared."""
    return sum(len(g.prompt_ids) * len(g.completions) + g.scored_tokens for g in groups)


def most_generated(request: GenerateRequest, max_length: int) -> Usage:
    """The most that generation takes. max_length: of a prompt, in tokens"""
    prompts = sum(min(_most_tokens(prompt), max_length) for prompt in request.prompts)
    written = len(request.prompts) * request.n * request.max_tokens
    return Usage(forward_tokens=prompts, cached_tokens=prompts * (request.n - 1), generated_tokens=written)


def _most_tokens(prompt: Prompt) -> int:
    """A token of text is at least a byte."""
    if isinstance(prompt, str):
        return len(prompt.encode()) + _TEMPLATE_TOKENS
    return sum(1 if isinstance(p, int) else len(json.dumps(p).encode()) + _TEMPLATE_TOKENS for p in prompt)
