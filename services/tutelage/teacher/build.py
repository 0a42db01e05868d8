"""The wiring of a teacher process: engine, batcher, scorer, and the two doors."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from tutelage.engines import Engine
from tutelage.engines.base import LimitedEngine
from tutelage.engines.opening import shown_url
from tutelage.engines.replicas import ReplicatedEngine
from tutelage.queue import Queue
from tutelage.serving import create_app, is_loopback
from tutelage.teacher.accounts import Accounts
from tutelage.teacher.app import add_routes
from tutelage.teacher.batcher import Batcher
from tutelage.teacher.cache import DiskStore, MemoryStore, ScoreCache
from tutelage.teacher.callers import Callers
from tutelage.teacher.keys import read_keys
from tutelage.teacher.registration import keep_registered
from tutelage.teacher.scorer import Scorer
from tutelage.teacher.settings import Settings
from tutelage.teacher.worker import QueueWorker
from tutelage.telemetry import TeacherMetrics
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.http import RetryPolicy


def build_app(settings: Settings, engine: Engine, queue: Queue | None = None) -> FastAPI:
    """One teacher as an app; its lifespan runs the queue door beside the HTTP door, and closes engine and queue.

    queue: work on this one too
    Raises:
        InvalidInput: the keys file, the accounts file or the score cache's file cannot be used.
    """
    keys = None if settings.keys_file is None else read_keys(settings.keys_file)
    settings.check_budgets(keys or ())
    callers = Callers(keys, settings.run_budget())
    registry = CollectorRegistry()
    metrics = TeacherMetrics.of(registry)
    _watch(engine, metrics)
    cache = _cache(settings, engine, metrics)
    accounts = Accounts(settings.accounts_file, settings.prices(), metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(accounts.close)
            if queue is not None:
                stack.push_async_callback(queue.close)
            stack.push_async_callback(engine.close)
            if cache is not None:
                stack.push_async_callback(cache.close)
            batcher = await stack.enter_async_context(Batcher(engine, settings.max_batch_tokens, metrics))
            scorer = app.state.scorer = Scorer(
                settings.name, engine, batcher, settings.limits(), accounts, metrics, cache
            )
            stack.push_async_callback(scorer.close)
            await scorer.probe_once()
            await stack.enter_async_context(_beside(app, settings, scorer, callers, queue))
            yield

    app = create_app(
        f"Tutelage teacher {settings.name}",
        lifespan,
        ready=lambda: _why_not(app),
        registry=registry,
        own_machine=keys is None and is_loopback(settings.host),
    )
    add_routes(app, callers)
    return app


def _watch(engine: Engine, metrics: TeacherMetrics) -> None:
    """Let what holds the calls to upstreams back be read of them, and who of several takes work."""
    if isinstance(engine, LimitedEngine) and (calls := engine.calls) is not None:
        upstream = shown_url(calls.url)
        metrics.breaker_open.labels(upstream).set_function(lambda: float(calls.breaker.is_open))
        metrics.concurrency_limit.labels(upstream).set_function(lambda: calls.limit.limit)
    if not isinstance(engine, ReplicatedEngine):
        return
    for replica in engine.replicas:
        replica.listen(lambda event, name=replica.name: metrics.replica_events.labels(name, event).inc())
        metrics.replica_up.labels(replica.name).set_function(lambda replica=replica: float(replica.up))
        _watch(replica.engine, metrics)


def _cache(settings: Settings, engine: Engine, metrics: TeacherMetrics) -> ScoreCache | None:
    path = settings.score_cache_file
    if path is None and settings.score_cache_bytes == 0:
        return None
    disk = None if path is None else DiskStore(path, settings.score_cache_file_bytes)
    return ScoreCache(engine, MemoryStore(settings.score_cache_bytes), disk, metrics)


def _why_not(app: FastAPI) -> str | None:
    return "the teacher is stopping" if app.state.stopping.is_set() else app.state.scorer.not_ready


@asynccontextmanager
async def _beside(
    app: FastAPI, settings: Settings, scorer: Scorer, callers: Callers, queue: Queue | None
) -> AsyncGenerator[None]:
    """What runs beside the HTTP door until `stopping` is set."""
    stopping: asyncio.Event = app.state.stopping
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        if queue is None:
            tasks.create_task(_or_stop(lambda: scorer.stay_ready(stopping)))
        else:
            tasks.create_task(_or_stop(_worker(settings, scorer, callers, queue, stopping).run))
        watching = tasks.create_task(_or_stop(lambda: scorer.watch(settings.canary_every_s)))
        if settings.coordinator is not None:
            key, retry = settings.coordinator_key(), RetryPolicy(deadline_s=2.0)
            client = CoordinatorClient(settings.coordinator, key, retry=retry)
            stack.push_async_callback(client.close)
            url = settings.public_url or app.state.url
            tasks.create_task(_or_stop(lambda: keep_registered(client, scorer, url, stopping)))
        yield
        stopping.set()
        watching.cancel()  # it may wait for an engine that does not answer


async def _or_stop(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """A process with half of its work broken is worse than one that is started again.

    work: begun here, because a task that is cancelled before its first step leaves nothing behind that waits
    """
    try:
        await work()
    except Exception:  # not handled here: it goes on after the process was told to stop
        signal.raise_signal(signal.SIGTERM)
        raise


def _worker(settings: Settings, scorer: Scorer, callers: Callers, queue: Queue, stopping: asyncio.Event) -> QueueWorker:
    return QueueWorker(
        queue,
        scorer,
        callers,
        f"{socket.gethostname()}-{os.getpid()}",
        lease_s=settings.lease_s,
        max_tokens=2 * settings.max_batch_tokens,  # one batch with the engine and the next one waiting
        grace_s=settings.grace_s,
        stopping=stopping,
    )
