"""Calls to an upstream: how many at a time, how often again, when to stop; and numbers that are not believed."""

from __future__ import annotations

import asyncio
import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.engines.upstream.asked import covered_candidates
from tutelage.engines.upstream.breaker import CircuitBreaker
from tutelage.engines.upstream.calls import Calls, all_of
from tutelage.engines.upstream.failures import TryAgain, UpstreamAway, UpstreamFailed
from tutelage.engines.upstream.limit import AdaptiveLimit
from tutelage.engines.upstream.npy import read_npy
from tutelage.engines.upstream.refusals import Refusals
from tutelage_client.errors import BadScores
from tutelage_client.wire import Overload


async def test_the_limit_halves_once_for_calls_that_were_open_together_and_grows_by_one_a_round() -> None:
    limit = AdaptiveLimit(8)
    for _ in range(100):
        limit.grow()
    assert limit.limit == 8
    async with limit.slot() as one, limit.slot() as other:
        limit.halve(one)
        limit.halve(other)
    assert limit.limit == 4
    for _ in range(4):
        limit.grow()
    assert limit.limit == 4
    limit.grow()
    assert limit.limit == 5


async def test_no_more_calls_are_open_than_the_limit() -> None:
    limit, open_now, most = AdaptiveLimit(2), 0, 0

    async def call() -> None:
        nonlocal open_now, most
        async with limit.slot():
            open_now += 1
            most = max(most, open_now)
            await asyncio.sleep(0)
            open_now -= 1

    await all_of([call() for _ in range(9)])
    assert most == 2


async def test_an_open_circuit_lets_one_call_try_and_its_end_decides() -> None:
    now_s = 0.0
    breaker = CircuitBreaker(2, first_pause_s=10, longest_pause_s=15, clock=lambda: now_s)
    breaker.failed()
    assert (breaker.wait_s(), breaker.state) == (0, "closed")
    breaker.failed()
    assert (breaker.wait_s(), breaker.state) == (10, "open")
    now_s = 10.0
    async with breaker.turn():
        assert breaker.wait_s() > 0, "others wait for the trial"
        assert breaker.state == "half_open"
        breaker.failed()
    assert breaker.wait_s() == 15
    now_s = 25.0
    async with breaker.turn():
        breaker.answered()
    assert breaker.wait_s() == 0


async def test_a_call_past_its_deadline_is_cancelled_and_named() -> None:
    cancelled = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(UpstreamAway, match=r"http://x did not answer within 0\.05 s"):
        await Calls("http://x", 0.05, 1).make(hang)
    assert cancelled.is_set()


def test_an_upstream_is_over_its_limits_until_a_call_goes_well_or_nobody_tries_any_more() -> None:
    now_s = 100.0
    refusals = Refusals(clock=lambda: now_s)
    assert refusals.overload is None
    refusals.refused("status 429", 30.0)
    now_s = 120.0
    refusals.refused("status 503", 7.0)
    assert refusals.overload == Overload(lasting_s=20.0, retry_after_s=7.0, reason="status 503")
    refusals.taken()
    assert refusals.overload is None
    refusals.refused("status 429", 30.0)
    assert refusals.overload is not None and refusals.overload.lasting_s == 0
    now_s = 165.0
    assert refusals.overload is None


async def test_a_refused_call_is_told_of_until_another_one_is_taken() -> None:
    calls, answers = Calls("http://x", 60, 1), [TryAgain("overloaded", "status 429", 0.01), "text"]
    seen: list[Overload | None] = []

    async def attempt() -> str:
        seen.append(calls.refusals.overload)
        answer = answers.pop(0)
        if isinstance(answer, TryAgain):
            raise answer
        assert isinstance(answer, str)
        return answer

    assert await calls.make(attempt) == "text"
    assert [overload is None for overload in seen] == [True, False]
    assert calls.refusals.overload is None


async def test_a_wait_longer_than_the_deadline_is_not_begun() -> None:
    async def busy() -> None:
        raise TryAgain("overloaded", "status 429", at_least_s=3600)

    with pytest.raises(UpstreamAway, match="took no work within 60 s: status 429"):
        await Calls("http://x", 60, 1).make(busy)


async def test_a_server_error_is_tried_three_times() -> None:
    tries = 0

    async def break_down() -> None:
        nonlocal tries
        tries += 1
        raise TryAgain("broken", "status 500")

    with pytest.raises(UpstreamFailed, match="failed 3 times"):
        await Calls("http://x", 60, 1).make(break_down)
    assert tries == 3


async def test_the_first_error_of_several_calls_cancels_the_others() -> None:
    cancelled = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise BadScores("no")

    with pytest.raises(BadScores, match="no"):
        await all_of([hang(), fail()])
    assert cancelled.is_set()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 8), st.data())
def test_a_candidate_is_covered_by_the_top_k_or_bounded_by_its_last(rows: int, k: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    logits = rng.normal(size=(rows, 12))
    logprob_RV = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    ids_RK = np.argsort(-logprob_RV, axis=1)[:, :k]
    candidates = rng.integers(-1, 12, size=(rows, 5))
    found = covered_candidates(candidates, ids_RK, np.take_along_axis(logprob_RV, ids_RK, 1))
    for r in range(rows):
        for c, candidate in enumerate(candidates[r]):
            covered = candidate in ids_RK[r]
            assert found["candidate_valid"][r, c] == covered
            if covered:
                assert found["candidate_logprob"][r, c] == logprob_RV[r, candidate]
            elif candidate >= 0:
                assert logprob_RV[r, candidate] <= found["candidate_upper_bound"][r]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 3), np.float32), None),
        (np.zeros((3, 2), np.float32), "asked were"),
        (np.zeros((2, 3), np.float64), "float32 was agreed"),
        (np.array([[1, None, 2]] * 2, dtype=object), "float32 was agreed"),
    ],
)
def test_only_the_agreed_array_is_read(array: np.ndarray, said: str | None) -> None:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    encoded = base64.b64encode(file.getvalue()).decode()
    if said is None:
        assert read_npy(encoded, (2, 3)).tolist() == array.tolist()
    else:
        with pytest.raises(BadScores, match=said):
            read_npy(encoded, (2, 3))
