"""A teacher asks a known question again and again; an answer that changed ends its readiness, or a replica's work."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx2
import numpy as np
import pytest

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine, log_softmax
from tutelage.engines.replicas import Replica, ReplicatedEngine
from tutelage.teacher.build import build_app
from tutelage.teacher.settings import Settings

SOON_S = 0.02
OFTEN = {"canary_every_s": SOON_S}


def other_weights() -> Any:
    return FakeEngine(FakeOptions(seed=5), "toy").logprob_VV


async def test_the_question_is_asked_again_and_again_while_nobody_asks_for_anything(
    start_teacher: Any, until: Any
) -> None:
    async with start_teacher(**OFTEN) as teacher:
        await until(lambda: len(teacher.engine.calls) >= 3)
        assert set(teacher.engine.calls) == {1}
        shown = (await teacher.http.get("/metrics")).text
    assert 'tutelage_teacher_canaries_total{outcome="ok"}' in shown
    assert 'tutelage_teacher_canaries_total{outcome="failed"}' not in shown
    assert 'account="' not in shown, "nobody pays for it"


def other_where_improbable() -> Any:
    """No probability is off by more than 1 in 100."""
    table = FakeEngine(FakeOptions(), "toy").logprob_VV
    return log_softmax(np.where(table < -8, table - 3, table))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (other_weights(), "scored differently than at the start"),
        (other_where_improbable(), "differently than at the start (a log-probability is off by"),
        (np.full((32, 32), -np.log(32)), "every token has the same log-prob"),
        (np.full((32, 32), np.nan), "sampled_logprob is NaN in a row that is marked valid"),
    ],
    ids=["drift", "drift-where-improbable", "uniform", "nan"],
)
async def test_another_answer_ends_readiness_for_all_to_see_until_it_is_the_old_one_again(
    start_teacher: Any, until: Any, caplog: pytest.LogCaptureFixture, weights: Any, said: str
) -> None:
    async with start_teacher(**OFTEN) as teacher:
        scorer, toy = teacher.app.state.scorer, teacher.engine.inner
        before = toy.logprob_VV
        toy.logprob_VV = weights
        with caplog.at_level(logging.WARNING):
            await until(lambda: scorer.not_ready is not None)
        assert "the canary failed" in caplog.messages
        ready = await teacher.http.get("/readyz")
        assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
        assert said in ready.json()["detail"]
        info = await teacher.client.info()
        assert info.probe["ok"] is False
        assert said in info.probe["reason"]
        refused = await teacher.http.post("/v1/score", json={"sequences": [{"token_ids": [1, 2], "score_start": 1}]})
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert 'canaries_total{outcome="failed"} 1.0' in (await teacher.http.get("/metrics")).text
        await scorer.probe_once()
        assert scorer.not_ready is not None, "a probe that goes well does not make other weights the same teacher"
        toy.logprob_VV = before
        await until(lambda: scorer.not_ready is None)


async def test_it_shares_its_call_with_no_other_work(start_teacher: Any, request_for: Any, until: Any) -> None:
    async with start_teacher(**OFTEN) as teacher:
        teacher.engine.gate.clear()
        await until(lambda: teacher.engine.busy == 1)
        work = [asyncio.create_task(teacher.client.score(request_for([3, 4]))) for _ in range(4)]
        await until(lambda: teacher.app.state.scorer.batcher.waiting_tokens >= 4 * 4)
        calls = len(teacher.engine.calls)
        teacher.engine.gate.set()
        await asyncio.gather(*work)
        assert 4 in teacher.engine.calls[calls:], "the others share a call"


async def test_a_replica_that_drifts_is_quarantined_though_it_is_asked_for_nothing(until: Any) -> None:
    toys = [FakeEngine(FakeOptions(), "toy") for _ in range(3)]
    engine = ReplicatedEngine([Replica(name, toy) for name, toy in zip(("a:1", "b:2", "c:3"), toys, strict=True)])
    app = build_app(Settings.model_validate({"name": "toy", "engine": "fake", **OFTEN}), engine)
    app.state.url = "http://127.0.0.1"
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
    ):
        assert [view.up for view in engine.views()] == [True] * 3
        toys[1].logprob_VV = other_weights()
        await until(lambda: not engine.replicas[1].up)
        assert (await http.get("/readyz")).status_code == 200
        a, b, c = (await http.get("/v1/teacher")).json()["replicas"]
        assert (a["up"], b["up"], c["up"], b["quarantined"]) == (True, False, True, 1)
        assert "differently from the others" in b["reason"]
        shown = (await http.get("/metrics")).text
        assert 'tutelage_teacher_replica_up{replica="b:2"} 0.0' in shown
        assert 'tutelage_teacher_replica_events_total{event="quarantined",replica="b:2"} 1.0' in shown
        toys[0].logprob_VV = toys[2].logprob_VV = np.full((32, 32), -np.log(32))
        await until(lambda: app.state.scorer.not_ready is not None)
        detail = (await http.get("/readyz")).json()["detail"]
        assert "no replica is left" in detail
        assert "every token has the same log-prob" in detail


async def test_a_teacher_stops_though_its_engine_does_not_answer_the_question(start_teacher: Any, until: Any) -> None:
    async with asyncio.timeout(10), start_teacher(**OFTEN) as teacher:
        teacher.engine.gate.clear()
        await until(lambda: teacher.engine.busy == 1)
