"""What launched trainers wrote, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from launched import Recorder

from tutelage.coordinator.app import build_app
from tutelage.coordinator.db import Database
from tutelage.coordinator.launchers import Launch, LaunchStatus
from tutelage.coordinator.settings import Settings
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse
from tutelage_client.worker import WorkerClient

Spec = Callable[..., dict[str, Any]]


@pytest.fixture
def launcher() -> Recorder:
    return Recorder()


@pytest.fixture
def app(settings: Settings, database: Database, launcher: Recorder) -> FastAPI:
    return build_app(settings, database, launcher=launcher)


async def test_the_log_of_the_newest_attempt_and_of_an_older_one(
    coordinator: CoordinatorClient, worker: WorkerClient, launcher: Recorder, spec: Spec
):
    run = await coordinator.submit(spec())
    with pytest.raises(ProblemResponse) as none:
        await coordinator.logs(run.id)
    assert none.value.code == "log_not_found"
    launcher.known[Launch(run.id, 1)] = LaunchStatus("pending")
    assert await coordinator.logs(run.id, lines=1) == f"{run.id}-e1 says\n"
    await worker.lease_run(run.id, "w")
    assert await coordinator.logs(run.id, lines=2) == 2 * f"{run.id}-e1 says\n"
    with pytest.raises(ProblemResponse) as older:
        await coordinator.logs(run.id, epoch=7)
    assert older.value.code == "log_not_found"


async def test_why_there_are_no_logs(
    coordinator: CoordinatorClient,
    http: httpx2.AsyncClient,
    settings: Settings,
    database: Database,
    launcher: Recorder,
    spec: Spec,
):
    run = await coordinator.submit(spec())
    launcher.away = True
    answer = await http.get(f"/v1/runs/{run.id}/logs")
    assert (answer.status_code, answer.json()["detail"]) == (503, "the cluster does not answer")
    assert (await http.get("/v1/runs/none/logs")).json()["code"] == "run_not_found"
    plain = httpx2.ASGITransport(build_app(settings, database))
    async with httpx2.AsyncClient(transport=plain, base_url="http://127.0.0.1") as other:
        assert (await other.get(f"/v1/runs/{run.id}/logs")).json()["code"] == "no_launcher"
