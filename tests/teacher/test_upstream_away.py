"""A teacher whose upstream goes away stops taking work, keeps its jobs, and goes on when it is back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx2

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.engines.upstream.failures import UpstreamAway
from tutelage.queue.memory import MemoryQueue
from tutelage.teacher.build import build_app
from tutelage.teacher.settings import Settings
from tutelage_client.wire import ScoreGroup, Signal, TokenScores, Usage


class Leaving(FakeEngine):
    """The toy engine behind an upstream that can go away."""

    away = False

    async def connect(self) -> dict[str, Any]:
        if self.away:
            raise UpstreamAway("http://gpu-host:8000 took no work within 120 s")
        return {}

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
    ) -> tuple[list[TokenScores], Usage]:
        await self.connect()
        return await super().score(groups, signals, top_k)


async def test_it_is_not_ready_while_away_and_ready_when_back(until: Any) -> None:
    engine = Leaving(FakeOptions(), "toy")
    app = build_app(Settings.model_validate({"name": "toy", "engine": "fake"}), engine, MemoryQueue())
    app.state.url = "http://127.0.0.1"
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    body = {"sequences": [{"token_ids": [1, 2, 3], "score_start": 1}]}
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
    ):
        assert (await http.post("/v1/score", json=body)).status_code == 200
        engine.away = True
        failed = await http.post("/v1/score", json=body)
        assert (failed.status_code, failed.json()["code"]) == (502, "engine_failed")
        ready = await http.get("/readyz")
        assert ready.status_code == 503
        assert "http://gpu-host:8000 took no work" in ready.json()["detail"]
        engine.away = False
        await until(lambda: app.state.scorer.not_ready is None)
        assert (await http.post("/v1/score", json=body)).status_code == 200
