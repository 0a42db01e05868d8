"""Micro-batching: what shares an engine call, what must not suffer from it, and who goes first."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from toy_teacher import WELL_IN_PROBE

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import GenerateRequest, ScoreRequest, ScoreSequence, Signal

ONE = ScoreRequest(
    sequences=(ScoreSequence(token_ids=np.array([1, 2, 7], dtype=np.int32), score_start=2),),
)
TOP_K = {"signals": frozenset({Signal.TOP_K}), "top_k": 2}


async def scored_while_busy(teacher: Any, until: Any, requests: list[Any]) -> list[Any]:
    """Send `requests` in order while the engine works on another one, then let it go on; their results or errors."""
    batcher = teacher.app.state.scorer.batcher
    teacher.engine.gate.clear()
    first = asyncio.create_task(teacher.client.score(ONE))
    await teacher.engine.started.wait()
    tasks = []
    for request in requests:
        before = batcher.waiting_tokens
        tasks.append(asyncio.create_task(teacher.client.score(request)))
        await until(lambda before=before: batcher.waiting_tokens > before)
    teacher.engine.gate.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_requests_that_arrive_while_the_engine_works_share_the_next_call(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    requests = [request_for([3 + i, 4]) for i in range(5)]
    async with start_teacher() as teacher:
        replies = await scored_while_busy(teacher, until, requests)
        assert teacher.engine.calls == [1, 5]
    engine = FakeEngine(FakeOptions(), "toy")
    for request, reply in zip(requests, replies, strict=True):
        blocks, usage = await engine.score(request.groups(), request.signals, None)
        np.testing.assert_array_equal(reply.scores[0].sampled_logprob, blocks[0].sampled_logprob)
        assert reply.usage == usage


async def test_an_idle_engine_takes_a_single_request_at_once(start_teacher: Any, request_for: Any) -> None:
    async with start_teacher() as teacher:
        await teacher.client.score(request_for())
        assert teacher.engine.calls == [1]


async def test_a_call_stays_within_its_token_budget(start_teacher: Any, request_for: Any, until: Any) -> None:
    async with start_teacher(max_batch_tokens=10) as teacher:
        await scored_while_busy(teacher, until, [request_for([3, 4, 5]) for _ in range(5)])  # five tokens each
        assert teacher.engine.calls == [1, 2, 2, 1]


async def test_a_large_request_is_cut_and_put_together_again(start_teacher: Any, request_for: Any) -> None:
    request = request_for(*[[3 + i, 4, 5] for i in range(7)])
    async with start_teacher(max_batch_tokens=10) as teacher:
        reply = await teacher.client.score(request)
        assert teacher.engine.calls == [2, 2, 2, 1]
    blocks, usage = await FakeEngine(FakeOptions(), "toy").score(request.groups(), request.signals, None)
    assert reply.usage == usage
    for got, wanted in zip(reply.scores, blocks, strict=True):
        np.testing.assert_array_equal(got.sampled_logprob, wanted.sampled_logprob)


async def test_other_signals_go_apart_and_the_oldest_request_goes_first(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    requests = [request_for([3]), request_for([4], [5], **TOP_K), request_for([6])]
    async with start_teacher() as teacher:
        replies = await scored_while_busy(teacher, until, requests)
        assert teacher.engine.calls == [1, 2, 2]
    assert replies[1].scores[0].topk_ids.shape == (1, 2)
    assert replies[1].scores[0].sampled_logprob is None
    assert replies[2].scores[0].topk_ids is None


async def test_nobody_overtakes_a_request_that_asks_for_the_same(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    small, large = request_for([3]), request_for([3] * 8)  # three and ten tokens
    async with start_teacher(max_batch_tokens=10) as teacher:
        await scored_while_busy(teacher, until, [small, large, small, small])
        assert teacher.engine.calls == [1, 1, 1, 2]


async def test_a_poison_request_does_not_fail_its_neighbours(start_teacher: Any, request_for: Any, until: Any) -> None:
    async with start_teacher(poison=True) as teacher:
        replies = await scored_while_busy(teacher, until, [request_for([3]), request_for([13]), request_for([5])])
        assert teacher.engine.calls == [1, 3, 1, 1, 1]
        assert (await teacher.client.score(request_for([6]))).usage.scored_tokens == 1
    assert isinstance(replies[1], ProblemResponse)
    assert replies[1].code == "engine_failed"
    assert [reply.usage.scored_tokens for reply in (replies[0], replies[2])] == [1, 1]


async def test_a_spoilt_merged_answer_is_asked_for_again_one_by_one(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    faults = (*WELL_IN_PROBE, "none", "nan")  # after the probe: the first request, the merged call
    async with start_teacher(FakeOptions(faults=faults)) as teacher:
        replies = await scored_while_busy(teacher, until, [request_for([3]), request_for([5])])
        assert teacher.engine.calls == [1, 2, 1, 1]
    assert all(np.isfinite(reply.scores[0].sampled_logprob).all() for reply in replies)


async def test_a_request_that_was_cancelled_is_never_scored(start_teacher: Any, request_for: Any, until: Any) -> None:
    async with start_teacher() as teacher:
        batcher = teacher.app.state.scorer.batcher
        teacher.engine.gate.clear()
        first = asyncio.create_task(teacher.client.score(request_for()))
        await teacher.engine.started.wait()
        given_up = asyncio.create_task(batcher.score(request_for([8]).groups(), frozenset({Signal.SAMPLED}), None))
        await until(lambda: batcher.waiting_tokens == 3)
        given_up.cancel()
        await asyncio.wait([given_up])
        teacher.engine.gate.set()
        await first
        await teacher.client.score(request_for())
        assert teacher.engine.calls == [1, 1]


async def test_generation_takes_its_turn_among_the_scores(start_teacher: Any, request_for: Any) -> None:
    asked = GenerateRequest(prompts=["t1"], max_tokens=3, seed=1)
    async with start_teacher(FakeOptions(latency_s=0.01)) as teacher:  # the engine asserts that no calls overlap
        results = await asyncio.gather(
            *(teacher.client.score(request_for()) for _ in range(3)),
            *(teacher.client.generate(asked) for _ in range(3)),
        )
    assert results[3] == results[4] == results[5]


async def test_a_teacher_that_stops_fails_what_waits_and_closes_its_engine(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    async with start_teacher() as teacher:
        teacher.engine.gate.clear()
        tasks = [asyncio.create_task(teacher.client.score(request_for()))]
        await teacher.engine.started.wait()
        tasks.append(asyncio.create_task(teacher.client.score(request_for())))
        await until(lambda: teacher.app.state.scorer.batcher.waiting_tokens > 0)
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert [getattr(result, "code", None) for result in results] == ["engine_failed"] * 2
    assert teacher.engine.closed


async def test_a_teacher_that_stops_between_two_attempts_leaves_nobody_waiting(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    async with start_teacher(poison=True) as teacher:
        teacher.engine.gate.clear()
        batcher = teacher.app.state.scorer.batcher
        tasks = [asyncio.create_task(teacher.client.score(ONE))]
        await teacher.engine.started.wait()
        tasks += [asyncio.create_task(teacher.client.score(request_for([token]))) for token in (13, 4, 5)]
        await until(lambda: batcher.waiting_tokens == 9)
        teacher.engine.close_at = 3
        teacher.engine.gate.set()
        await until(lambda: teacher.engine.calls == [1, 3, 1])
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert [getattr(result, "code", "ok") for result in results] == ["ok", *["engine_failed"] * 3]
