"""A teacher registers at the coordinator, keeps doing so, and does not mind when the coordinator is away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx2

from tutelage.teacher.registration import keep_registered
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.http import RetryPolicy
from tutelage_client.wire import Overload, TeacherRegistration, TeacherView


class Coordinator:
    """Takes registrations, after `away` refused connections."""

    def __init__(self, away: int = 0) -> None:
        self.away = away
        self.seen: list[TeacherRegistration] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if self.away:
            self.away -= 1
            raise httpx2.ConnectError("refused")
        assert (request.method, request.url.path) == ("POST", "/v1/teachers")
        told = TeacherRegistration.model_validate_json(request.content)
        self.seen.append(told)
        view = TeacherView(name=told.name, url=told.url, info=told.info, seen_at=datetime.now(UTC), available=True)
        return httpx2.Response(200, content=view.model_dump_json())

    def client(self) -> CoordinatorClient:
        transport = httpx2.MockTransport(self)
        return CoordinatorClient("http://coordinator", transport=transport, retry=RetryPolicy(deadline_s=0))


async def test_it_registers_again_and_again_and_survives_an_outage(start_teacher: Any, until: Any) -> None:
    coordinator = Coordinator(away=3)
    async with start_teacher() as teacher, coordinator.client() as client:
        scorer, stopping = teacher.app.state.scorer, asyncio.Event()
        task = asyncio.create_task(keep_registered(client, scorer, "http://here", stopping, every_s=0.005))
        await until(lambda: len(coordinator.seen) >= 3)
        stopping.set()
        await asyncio.wait_for(task, 5)
        info = await teacher.client.info()
    assert {(told.name, told.url) for told in coordinator.seen} == {("toy", "http://here")}
    assert coordinator.seen[0].info == info


async def test_a_teacher_that_is_not_ready_does_not_register(start_teacher: Any, until: Any) -> None:
    coordinator = Coordinator()
    async with start_teacher() as teacher, coordinator.client() as client:
        scorer, stopping = teacher.app.state.scorer, asyncio.Event()
        scorer.not_ready = "not yet"
        task = asyncio.create_task(keep_registered(client, scorer, "http://here", stopping, every_s=0.005))
        stopping.set()
        await asyncio.wait_for(task, 5)
    assert coordinator.seen == []


async def test_a_teacher_that_waits_for_its_upstreams_limits_goes_on_registering_and_says_so(
    start_teacher: Any, until: Any
) -> None:
    coordinator, overload = Coordinator(), Overload(lasting_s=9, retry_after_s=300, reason="status 429")
    async with start_teacher() as teacher, coordinator.client() as client:
        scorer, stopping = teacher.app.state.scorer, asyncio.Event()
        teacher.engine.overload, teacher.engine.breaker = overload, "half_open"
        scorer.not_ready = "http://api took no work within 120 s"
        task = asyncio.create_task(keep_registered(client, scorer, "http://here", stopping, every_s=0.005))
        await until(lambda: coordinator.seen)
        teacher.engine.overload = None
        told = len(coordinator.seen)
        stopping.set()
        await asyncio.wait_for(task, 5)
    assert all(each.info.overload == overload for each in coordinator.seen[:told])
    assert all(each.info.breaker == "half_open" for each in coordinator.seen)
