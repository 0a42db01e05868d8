"""What work costs, in tokens and in money, and the most that a request can come to before it is done.

Money is counted in whole picodollars (1e-12 USD), so that sums are exact: a dollar a million tokens is 10**6 a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage_client.wire import Prices, ScoreGroup, Usage

PICO = 10**12


@dataclass(frozen=True, slots=True)
class Cost:
    """tokens: those that went through the model and those that were written, as in the budget of a run's spec"""

    tokens: int = 0
    picousd: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.tokens + other.tokens, self.picousd + other.picousd)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.tokens - other.tokens, self.picousd - other.picousd)

    def or_more(self, other: Cost) -> Cost:
        return Cost(max(self.tokens, other.tokens), max(self.picousd, other.picousd))


def cost(prices: Prices, usage: Usage) -> Cost:
    input_, cached, output = (round(usd * PICO / 10**6) for usd in (prices.input, prices.cached, prices.output))
    return Cost(
        usage.forward_tokens + usage.generated_tokens,
        usage.forward_tokens * input_ + usage.cached_tokens * cached + usage.generated_tokens * output,
    )


def most_scored(groups: Sequence[ScoreGroup]) -> int:
    """The most tokens that scoring puts through the model: nothing is shared, and no last token is spared."""
    return sum(len(g.prompt_ids) * len(g.completions) + g.scored_tokens for g in groups)
