"""An engine that takes several calls at once: each goes its own way, and stops when nobody waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import numpy as np

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.teacher.patience import TIMEOUT_HEADER
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import Signal

SAMPLED = frozenset({Signal.SAMPLED})


async def sent(teacher: Any, until: Any, requests: list[Any]) -> list[asyncio.Task[Any]]:
    """One request after another, each at the engine or in the line before the next one comes."""
    batcher, tasks = teacher.app.state.scorer.batcher, []
    for request in requests:
        known = (len(teacher.engine.calls), batcher.waiting_tokens)
        tasks.append(asyncio.create_task(teacher.client.score(request)))
        await until(lambda known=known: (len(teacher.engine.calls), batcher.waiting_tokens) != known)
    return tasks


async def test_as_many_calls_are_open_as_the_engine_takes_and_the_rest_gathers(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    requests = [request_for([3 + i, 4]) for i in range(7)]
    async with start_teacher(calls_at_once=3) as teacher:
        teacher.engine.gate.clear()
        tasks = await sent(teacher, until, requests)
        assert (teacher.engine.calls, teacher.engine.busy) == ([1, 1, 1], 3)
        teacher.engine.gate.set()
        replies = await asyncio.gather(*tasks)
        assert teacher.engine.calls == [1, 1, 1, 4]
    engine = FakeEngine(FakeOptions(), "toy")
    for request, reply in zip(requests, replies, strict=True):
        blocks, usage = await engine.score(request.groups(), request.signals, None)
        np.testing.assert_array_equal(reply.scores[0].sampled_logprob, blocks[0].sampled_logprob)
        assert reply.usage == usage


async def test_the_parts_of_one_request_are_scored_beside_each_other_and_put_together_in_order(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    request = request_for(*[[3 + i, 4, 5] for i in range(7)])
    async with start_teacher(calls_at_once=4, max_batch_tokens=10) as teacher:
        teacher.engine.gate.clear()
        task = asyncio.create_task(teacher.client.score(request))
        await until(lambda: teacher.engine.busy == 4)
        teacher.engine.gate.set()
        reply = await task
        assert teacher.engine.calls == [2, 2, 2, 1]
    blocks, usage = await FakeEngine(FakeOptions(), "toy").score(request.groups(), request.signals, None)
    assert reply.usage == usage
    for got, wanted in zip(reply.scores, blocks, strict=True):
        np.testing.assert_array_equal(got.sampled_logprob, wanted.sampled_logprob)


async def test_a_call_that_fails_leaves_the_others_alone(start_teacher: Any, request_for: Any, until: Any) -> None:
    async with start_teacher(calls_at_once=3, poison=True) as teacher:
        teacher.engine.gate.clear()
        tasks = await sent(teacher, until, [request_for([3]), request_for([13]), request_for([5])])
        teacher.engine.gate.set()
        replies: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
        assert teacher.engine.calls == [1, 1, 1]
        assert (await teacher.client.score(request_for([6]))).usage.scored_tokens == 1
    assert isinstance(replies[1], ProblemResponse)
    assert replies[1].code == "engine_failed"
    assert [reply.usage.scored_tokens for reply in (replies[0], replies[2])] == [1, 1]


async def test_a_call_that_nobody_waits_for_any_more_stops_and_makes_room(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    async with start_teacher(calls_at_once=2) as teacher:
        teacher.engine.gate.clear()
        batcher, tasks = teacher.app.state.scorer.batcher, []
        for busy in (1, 2):
            tasks.append(asyncio.create_task(batcher.score(request_for([3 + busy]).groups(), SAMPLED, None)))
            await until(lambda busy=busy: teacher.engine.busy == busy)
        waits = asyncio.create_task(batcher.score(request_for([6]).groups(), SAMPLED, None))
        await until(lambda: batcher.waiting_tokens == 3)
        given_up, kept = tasks
        given_up.cancel()
        await until(lambda: len(teacher.engine.calls) == 3)
        assert (teacher.engine.stopped, teacher.engine.busy) == (1, 2)
        teacher.engine.gate.set()
        for task in (kept, waits):
            blocks, _ = await task
            assert np.isfinite(blocks[0].sampled_logprob).all()


async def test_a_merged_call_goes_on_while_one_of_its_requests_is_waited_for(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    async with start_teacher(calls_at_once=2) as teacher:
        teacher.engine.gate.clear()
        first = await sent(teacher, until, [request_for([3]), request_for([4])])
        ask = teacher.app.state.scorer.batcher.score
        merged = [asyncio.create_task(ask(request_for([5 + i]).groups(), SAMPLED, None)) for i in range(2)]
        await until(lambda: teacher.app.state.scorer.batcher.waiting_tokens == 6)
        teacher.engine.close_at = 3
        teacher.engine.gate.set()
        await until(lambda: teacher.engine.calls == [1, 1, 2])
        merged[0].cancel()
        await asyncio.wait([merged[0], *first])
        teacher.engine.gate.set()
        blocks, _ = await merged[1]
        assert np.isfinite(blocks[0].sampled_logprob).all()
        assert teacher.engine.stopped == 0


async def test_a_deadline_frees_the_engine_of_the_call(start_teacher: Any, until: Any) -> None:
    body = {"sequences": [{"token_ids": [1, 2, 7], "score_start": 2}]}
    async with start_teacher(calls_at_once=2) as teacher:
        teacher.engine.gate.clear()
        late: httpx2.Response = await teacher.http.post("/v1/score", json=body, headers={TIMEOUT_HEADER: "0.05"})
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        await until(lambda: teacher.engine.busy == 0)
        assert teacher.engine.stopped == 1
        teacher.engine.gate.set()
        assert (await teacher.http.post("/v1/score", json=body)).status_code == 200


async def test_a_teacher_that_stops_ends_every_call_and_fails_what_waits(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    async with start_teacher(calls_at_once=2) as teacher:
        teacher.engine.gate.clear()
        tasks = await sent(teacher, until, [request_for([3 + i]) for i in range(4)])
        assert teacher.engine.busy == 2
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert [getattr(result, "code", None) for result in results] == ["engine_failed"] * 4
    assert (teacher.engine.busy, teacher.engine.stopped, teacher.engine.closed) == (0, 2, True)
