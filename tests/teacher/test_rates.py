"""Token buckets: the mean rate holds for requests of any size, and a refusal says when to come again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.serving.rates import Pace, RateLimited


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@given(st.floats(0.5, 1000), st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 5)), min_size=1, max_size=40))
def test_no_more_than_the_rate_and_one_burst_is_let_through(rate: float, asked: list[tuple[int, float]]) -> None:
    clock = Clock()
    pace, taken = Pace("key a", None, rate, clock), 0
    for tokens, later_s in asked:
        clock.now_s += later_s
        try:
            pace.take(tokens)
        except RateLimited as error:
            clock.now_s += error.retry_after_s
            pace.take(tokens)
        # Of those before this one: a request may be larger than the bucket, and those after it wait for that.
        # A microsecond too early counts as in time.
        assert taken <= (rate * (clock.now_s + 1e-6) + max(rate, 1.0)) * (1 + 1e-9)
        taken += tokens


@given(st.floats(0.5, 1000), st.integers(1, 3000), st.integers(1, 3000), st.floats(0, 1e6))
def test_whoever_waits_as_long_as_told_is_let_through(rate: float, first: int, second: int, began_s: float) -> None:
    clock = Clock()
    clock.now_s = began_s
    pace = Pace("key a", None, rate, clock)
    pace.take(first)
    try:
        pace.take(second)
    except RateLimited as error:
        clock.now_s += error.retry_after_s
        pace.take(second)


def test_requests_and_tokens_are_limited_each() -> None:
    clock = Clock()
    pace = Pace("key a", 2, 100, clock)
    pace.take(0)
    pace.take(0)
    with pytest.raises(RateLimited, match="key a may ask for 2 requests a second; try again in 1 s") as refused:
        pace.take(0)
    assert refused.value.retry_after_s == 1
    clock.now_s = 10.0
    pace.take(1000)
    with pytest.raises(RateLimited, match="100 tokens a second; try again in 10 s"):
        pace.take(100)
    clock.now_s = 20.0
    pace.take(100)
