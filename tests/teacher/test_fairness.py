"""Waiting: fair shares, deadlines, clients that hang up, and a Retry-After that means something."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.teacher.fairness import FairLine
from tutelage_client.errors import ProblemResponse
from tutelage_client.teacher import TeacherClient


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), min_size=1, max_size=60))
def test_who_waits_is_served_within_a_request_of_an_equal_share(asked: list[tuple[str, int]]) -> None:
    line, served = FairLine(), dict.fromkeys("abc", 0)
    waiting = sorted(((line.place(owner, n), i, owner, n) for i, (owner, n) in enumerate(asked)))
    for owner in "abc":
        order = [i for _, i, each, _ in waiting if each == owner]
        assert order == sorted(order), "the work of one owner keeps its order"
    while waiting:
        start, _, owner, tokens = waiting.pop(0)
        line.serve(start)
        served[owner] += tokens
        behind = [served[other] for _, _, other, _ in waiting]
        assert all(served[owner] - tokens <= other for other in behind)


def test_a_newcomer_starts_where_the_service_stands() -> None:
    line = FairLine()
    assert [line.place("a", 10), line.place("a", 10), line.place("a", 10)] == [0, 10, 20]
    line.serve(10)
    assert line.place("b", 5) == 10
    line.clear()
    assert line.place("a", 1) == 0


async def test_a_caller_with_a_backlog_does_not_delay_another(
    start_teacher: Any, request_for: Any, until: Any, tmp_path: Path
) -> None:
    order: list[str] = []
    keys = tmp_path / "keys"
    keys.write_text("\n".join(hashlib.sha256(key).hexdigest() for key in (b"busy", b"small")))
    async with start_teacher(max_batch_tokens=5, keys_file=keys, key="busy") as teacher:
        batcher, transport = teacher.app.state.scorer.batcher, teacher.client._http._client._transport
        async with TeacherClient("http://127.0.0.1", key="small", transport=transport) as small:
            teacher.engine.gate.clear()
            blocker = asyncio.create_task(teacher.client.score(request_for()))
            await teacher.engine.started.wait()

            async def ask(name: str, client: TeacherClient) -> None:
                await client.score(request_for([3, 4, 5]))
                order.append(name)

            tasks = []
            for name, client in [("busy", teacher.client)] * 6 + [("small", small)]:
                waiting = batcher.waiting_tokens
                tasks.append(asyncio.create_task(ask(name, client)))
                await until(lambda waiting=waiting: batcher.waiting_tokens > waiting)
            teacher.engine.gate.set()
            await asyncio.gather(blocker, *tasks)
    assert order.index("small") <= 1


async def test_a_deadline_cancels_what_has_not_begun(start_teacher: Any, request_for: Any) -> None:
    body = {"sequences": [{"token_ids": [1, 2, 3], "score_start": 1}]}
    async with start_teacher() as teacher:
        teacher.engine.gate.clear()
        blocker = asyncio.create_task(teacher.client.score(request_for()))
        await teacher.engine.started.wait()
        late = await teacher.http.post("/v1/score", json=body, headers={"Tutelage-Timeout-S": "0.05"})
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        wrong = await teacher.http.post("/v1/score", json=body, headers={"Tutelage-Timeout-S": "soon"})
        assert (wrong.status_code, wrong.json()["field"]) == (422, "Tutelage-Timeout-S")
        teacher.engine.gate.set()
        await blocker
        await teacher.client.score(request_for())
        assert teacher.engine.calls == [1, 1]


async def test_a_client_that_hangs_up_is_not_worked_for(start_teacher: Any, request_for: Any, until: Any) -> None:
    body = b'{"sequences": [{"token_ids": [1, 2, 3], "score_start": 1}]}'
    hang_up, sent = asyncio.Event(), iter([{"type": "http.request", "body": body}])

    async def receive() -> Any:
        for message in sent:
            return message
        await hang_up.wait()
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/score", "query_string": b"", "headers": headers}
    async with start_teacher() as teacher:
        teacher.engine.gate.clear()
        blocker = asyncio.create_task(teacher.client.score(request_for()))
        await teacher.engine.started.wait()
        leaving = asyncio.create_task(teacher.app(scope, receive, send))
        await until(lambda: teacher.app.state.scorer.batcher.waiting_tokens > 0)
        hang_up.set()
        await leaving
        teacher.engine.gate.set()
        await blocker
        await teacher.client.score(request_for())
        assert teacher.engine.calls == [1, 1]
        metric = teacher.app.state.registry.get_sample_value
        assert metric("tutelage_teacher_requests_total", {"door": "http", "outcome": "dropped"}) == 1


async def test_giving_up_costs_the_most_once_the_engine_has_begun(
    start_teacher: Any, request_for: Any, tmp_path: Path
) -> None:
    body = {"sequences": [{"token_ids": [1, 2, 3], "score_start": 1}]}
    hurry = {"Tutelage-Timeout-S": "0.05"}
    async with start_teacher() as teacher:
        teacher.engine.gate.clear()
        assert (await teacher.http.post("/v1/score", json=body, headers=hurry)).status_code == 504  # begun
        assert (await teacher.http.post("/v1/score", json=body, headers=hurry)).status_code == 504  # not begun
        assert (await teacher.client.usage()).tokens == 3
        teacher.engine.gate.set()


async def test_a_full_room_refuses_who_fills_it_and_lets_the_other_in(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    async with start_teacher(max_waiting_tokens=10) as teacher:
        batcher = teacher.app.state.scorer.batcher
        teacher.engine.gate.clear()
        tasks = [asyncio.create_task(teacher.client.score(request_for()))]
        await teacher.engine.started.wait()
        for waiting in (5, 10):
            tasks.append(asyncio.create_task(teacher.client.score(request_for())))
            await until(lambda waiting=waiting: batcher.waiting_tokens == waiting)
        batcher.tokens_per_s = 0.1
        with pytest.raises(ProblemResponse, match="10 tokens wait already, at most 10 may; try again in 10 s") as full:
            await teacher.client.score(request_for())
        assert (full.value.status, full.value.code) == (503, "overloaded")
        assert batcher.has_room("key other", 10)
        teacher.engine.gate.set()
        await asyncio.gather(*tasks)
