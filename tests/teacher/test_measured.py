"""What a teacher tells Prometheus of its engine, its upstreams and its costs."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from exposed import scraped
from toy_teacher import WELL_IN_PROBE

from tutelage.engines import FakeOptions
from tutelage.engines.base import LimitedEngine
from tutelage.engines.fake import FakeEngine
from tutelage.engines.replicas import Replica, ReplicatedEngine
from tutelage.engines.upstream.calls import Calls
from tutelage.teacher.build import build_app
from tutelage.teacher.settings import Settings
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import Breaker


@pytest.mark.parametrize(("fault", "reason"), [("nan", "nan"), ("positive", "positive"), ("short", "length")])
async def test_an_answer_that_is_refused_is_counted_by_its_flaw(
    start_teacher: Any, request_for: Any, fault: Any, reason: str
) -> None:
    async with start_teacher(FakeOptions(faults=(*WELL_IN_PROBE, fault))) as teacher:
        before = (await scraped(teacher.http)).about("tutelage_teacher_refused_scores_total")
        assert before == dict.fromkeys(("nan", "positive", "length", "mismatch", "malformed"), 0)
        with pytest.raises(ProblemResponse, match="refused"):
            await teacher.client.score(request_for())
        after = (await scraped(teacher.http)).about("tutelage_teacher_refused_scores_total")
    assert after == before | {reason: 1}


async def test_tokens_are_in_flight_while_the_engine_has_them(start_teacher: Any, request_for: Any) -> None:
    async with start_teacher() as teacher:
        teacher.engine.gate.clear()
        asked = asyncio.create_task(teacher.client.score(request_for([3, 4, 5])))
        await teacher.engine.started.wait()
        assert (await scraped(teacher.http)).value("tutelage_teacher_in_flight_tokens") == 5, "with its prompt"
        teacher.engine.gate.set()
        await asked
        assert (await scraped(teacher.http)).value("tutelage_teacher_in_flight_tokens") == 0


async def test_work_costs_what_its_tokens_are_priced_at(start_teacher: Any, request_for: Any) -> None:
    async with start_teacher(usd_per_million_input=2.0) as teacher:
        assert (await scraped(teacher.http)).value("tutelage_teacher_cost_usd_total") == 0, "the probe is free"
        one, two = [await teacher.client.score(request_for([3, 4, 5])) for _ in range(2)]
        told = (await scraped(teacher.http)).value("tutelage_teacher_cost_usd_total")
    assert told == pytest.approx((one.usage + two.usage).forward_tokens * 2e-6)


class Distant(FakeEngine):
    """The toy engine, said to be behind an upstream."""

    overload = None

    def __init__(self, url: str) -> None:
        super().__init__(FakeOptions(), "toy")
        self.calls = Calls(url, deadline_s=1, max_concurrency=16)

    @property
    def breaker(self) -> Breaker:
        return self.calls.breaker.state


@pytest.mark.parametrize("replicated", [False, True])
async def test_an_upstream_is_told_with_its_limit_and_its_breaker(replicated: bool) -> None:
    one, two = Distant("http://user:secret@one:8000/"), Distant("http://two:8000")
    assert isinstance(one, LimitedEngine)
    engine = ReplicatedEngine([Replica("one:8000", one), Replica("two:8000", two)]) if replicated else one
    app = build_app(Settings.model_validate({"name": "toy", "engine": "fake"}), engine)
    app.state.url = "http://127.0.0.1"
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1") as http:
        others = {"two:8000": 0.0} if replicated else {}
        assert (await scraped(http)).about("tutelage_teacher_breaker_open") == {"one:8000": 0} | others
        for _ in range(5):
            one.calls.breaker.failed()
        async with one.calls.limit.slot() as ticket:
            one.calls.limit.halve(ticket)
        told = await scraped(http)
        assert told.about("tutelage_teacher_breaker_open") == {"one:8000": 1} | others
        limits = told.about("tutelage_teacher_concurrency_limit")
        assert limits == {"one:8000": 1} | dict.fromkeys(others, 2)
