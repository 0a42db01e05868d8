"""A coordinator over SQLite and over a real PostgreSQL, in process; and the bodies that tests send to it."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI
from guarded import FILES
from postgres import execute
from sqlalchemy import delete, event, make_url, update

from tutelage.coordinator.app import build_app
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import Base, RunRow
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import Capabilities, Inspection, Lease, Provenance, Rollout, Signal, TeacherInfo
from tutelage_client.worker import WorkerClient

URL = "http://127.0.0.1"
_numbers = itertools.count()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Makes a database without tables and gives its URL."""

    def create() -> str:
        name = f"coordinator_{next(_numbers)}"
        if request.param == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp(name) / 'coordinator.db'}"
        server_url = request.getfixturevalue("postgres")
        execute(server_url, f"CREATE DATABASE {name}")
        return make_url(server_url).set(database=name).render_as_string(hide_password=False)

    return create


@pytest.fixture(scope="session")
def shared_database(empty_url: Callable[[], str]) -> Iterator[Database]:
    database = Database(empty_url())
    database.migrate()
    yield database
    database.close()


@pytest.fixture(scope="session")
def settings(shared_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    url = shared_database.engine.url.render_as_string(hide_password=False)
    return Settings(database_url=url, data_dir=tmp_path_factory.mktemp("data"), lease_s=30.0, max_file_bytes=4096)


@pytest.fixture(scope="session")
def shared_app(settings: Settings, shared_database: Database) -> FastAPI:
    return build_app(settings, shared_database)


@pytest.fixture(scope="session")
def guarded_settings(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of the same coordinator behind keys, which those of `FILES` open."""
    folder = tmp_path_factory.mktemp("keys")
    for role, secret in FILES.items():
        (folder / role).write_text(f"{secret}\n")
    files = {f"{role}_key_file": folder / role for role in FILES}
    shared = (Path("/models"), Path("/data"))
    return settings.model_copy(update={"require_keys": True, "shared_paths": shared, **files})


@pytest.fixture(scope="session")
def guarded_app(guarded_settings: Settings, shared_database: Database) -> FastAPI:
    return build_app(guarded_settings, shared_database)


@pytest.fixture
def database(shared_database: Database, settings: Settings) -> Iterator[Database]:
    """A database with the newest schema and no rows, beside an empty data directory."""
    yield shared_database
    with shared_database.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(delete(table))
    shutil.rmtree(settings.data_dir)
    settings.data_dir.mkdir()


@pytest.fixture
def app(shared_app: FastAPI, database: Database) -> FastAPI:
    shared_app.state.stopping = asyncio.Event()  # belongs to the event loop of one test
    return shared_app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=URL) as client:
        yield client


@pytest.fixture
async def coordinator(app: FastAPI) -> AsyncIterator[CoordinatorClient]:
    async with CoordinatorClient(URL, transport=httpx2.ASGITransport(app)) as client:
        yield client


@pytest.fixture
async def worker(app: FastAPI) -> AsyncIterator[WorkerClient]:
    async with WorkerClient(URL, transport=httpx2.ASGITransport(app)) as client:
        yield client


@pytest.fixture
def spec() -> Callable[..., dict[str, Any]]:
    """A spec that needs no teacher, with other sections on top."""

    def build(**sections: Any) -> dict[str, Any]:
        base = {
            "name": "walk",
            "student": {"model": "/models/student"},
            "data": {"train": "/data/prompts.jsonl"},
            "objective": {"kind": "constant_penalty"},
        }
        return base | sections

    return build


@pytest.fixture
def taught(spec: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A spec that asks the teacher `walker` for a divergence."""

    def build(objective: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
        return spec(objective={"kind": "divergence", **(objective or {})}, teachers=[{"name": "walker"}], **sections)

    return build


@pytest.fixture
def pushed_spec(spec: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A spec whose rollouts are written elsewhere."""
    return spec(rollout={"source": "pushed"}, data={})


@pytest.fixture
async def lease(coordinator: CoordinatorClient, worker: WorkerClient, pushed_spec: dict[str, Any]) -> Lease:
    """Of a run whose rollouts are written elsewhere."""
    await coordinator.submit(pushed_spec)
    lease = await worker.lease("w1")
    assert lease is not None
    return lease


@pytest.fixture
def teacher_info() -> Callable[..., TeacherInfo]:
    """A teacher that can do everything, less what is overridden."""

    def build(name: str = "walker", **capabilities: Any) -> TeacherInfo:
        able = {"signals": frozenset(Signal), "max_top_k": 8, "max_length": 512, "vocabulary_size": 32} | capabilities
        provenance = Provenance(
            teacher=name,
            model="toy",
            model_revision="1",
            tokenizer_fingerprint="f",
            engine="fake",
            engine_version="1",
            dtype="float32",
        )
        return TeacherInfo(name=name, capabilities=Capabilities(**able), provenance=provenance)

    return build


@pytest.fixture
def rollout() -> Callable[[str], Rollout]:
    def build(rollout_id: str) -> Rollout:
        return Rollout(
            id=rollout_id,
            source="pushed",
            policy_version=0,
            prompt_ids=np.array([1, 2]),
            completion_ids=np.array([3, 4, 5]),
            mask=np.array([True, True, False]),
            behaviour_logprob=np.array([-0.5, -0.25, -1.0]),
        )

    return build


@pytest.fixture
def inspection() -> Inspection:
    """Of a rollout of `rollout`: the second token is impossible to the teacher, the third was not scored."""
    return Inspection(
        start=2,
        valid=np.array([True, True, False]),
        student_logprob=np.array([-0.5, -0.25, -1.0]),
        student_entropy=np.array([0.75, 1.5, 0.125]),
        student_topk_ids=np.array([[3, 1], [4, 0], [5, 0]]),
        student_topk_logprob=np.array([[-0.5, -1.0], [-0.25, -1.75], [-1.0, -2.0]]),
        teacher_logprob=np.array([-2.0, -np.inf, np.nan]),
        teacher_entropy=np.array([0.5, 0.25, np.nan]),
        teacher_topk_ids=np.array([[1, 3], [0, -1], [-1, -1]]),
        teacher_topk_logprob=np.array([[-0.25, -2.0], [0.0, -np.inf], [np.nan, np.nan]]),
        contribution=np.array([1.5, 0.0, np.nan]),
        learned_tokens=96,
        teacher="walker",
        texts={0: "<eos>", 1: " a", 3: " walk", 4: "\n", 5: "ed"},
    )


@pytest.fixture
def expire(database: Database) -> Callable[[str], None]:
    """Let a run's lease run out as if its length had passed on the database's clock."""

    def run_out(run_id: str) -> None:
        with database.write() as session:
            lease_ended = update(RunRow).where(RunRow.id == run_id, RunRow.lease_expires_at.is_not(None))
            session.execute(lease_ended.values(lease_expires_at=1.0))

    return run_out


@pytest.fixture
def statements(database: Database) -> Iterator[Callable[[], list[str]]]:
    """Begins to count: the list grows by every statement that the database is sent from then on."""
    heard: list[list[str]] = []

    def listen() -> list[str]:
        heard.append([])
        return heard[-1]

    def hear(_: Any, __: Any, statement: str, *___: Any) -> None:
        for each in heard:
            each.append(statement)

    event.listen(database.engine, "before_cursor_execute", hear)
    yield listen
    event.remove(database.engine, "before_cursor_execute", hear)
