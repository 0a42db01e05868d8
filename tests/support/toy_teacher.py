"""Teachers in process: the real worker with the toy engine, and ones that answer what they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry
from single import answer_one

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.engines.options import Fault
from tutelage.queue import Delivery, Queue
from tutelage.teacher.accounts import Accounts, Budget
from tutelage.teacher.batcher import Batcher
from tutelage.teacher.callers import Callers
from tutelage.teacher.scorer import Scorer
from tutelage.teacher.settings import Settings
from tutelage.teacher.worker import QueueWorker
from tutelage.telemetry import TeacherMetrics
from tutelage_client.wire import ScoreReply, ScoreRequest, TeacherInfo, TeacherView, decode_request, encode_reply

WELL_IN_PROBE: tuple[Fault, ...] = ("none",) * 6  # an entry for each score call of the start-up probe


def registered(engine: FakeEngine, url: str = "http://127.0.0.1:1", **told: Any) -> TeacherView:
    """How the coordinator knows a teacher with this engine; nothing listens at its door unless `url` says so."""
    name = engine.provenance.teacher
    info = TeacherInfo(name=name, capabilities=engine.capabilities, provenance=engine.provenance, **told)
    return TeacherView(name=name, url=url, info=info, seen_at=datetime.now(UTC), available=True)


Reply = Callable[[FakeEngine, ScoreRequest], Awaitable[bytes | None]]


@asynccontextmanager
async def working(queue: Queue, engine: FakeEngine | None = None) -> AsyncGenerator[None]:
    """A teacher's worker on the queue under the engine's name, with the toy engine and its own probe."""
    engine = engine or FakeEngine(FakeOptions(), "toy")
    name = engine.provenance.teacher
    settings = Settings.model_validate({"name": name, "engine": "fake"})
    metrics = TeacherMetrics.of(CollectorRegistry())
    accounts = Accounts(None, settings.prices(), metrics)
    stopping = asyncio.Event()
    async with Batcher(engine, settings.max_batch_tokens, metrics) as batcher:
        scorer = Scorer(name, engine, batcher, settings.limits(), accounts, metrics)
        await scorer.probe_once()
        callers = Callers(None, Budget())
        worker = QueueWorker(queue, scorer, callers, "w", lease_s=30, max_tokens=1000, grace_s=0, stopping=stopping)
        task = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            stopping.set()
            await task
            accounts.close()


@asynccontextmanager
async def answering(queue: Queue, reply: Reply, engine: FakeEngine | None = None) -> AsyncGenerator[list[Delivery]]:
    """Some other teacher: `reply(engine, request)` makes the bytes, or None to fail the job for good."""
    engine, taken = engine or FakeEngine(FakeOptions(), "toy"), []

    async def work() -> None:
        while True:
            for delivery in await queue.lease(engine.provenance.teacher, "w", count=8, wait_s=1.0):
                taken.append(delivery)
                payload = await reply(engine, decode_request(delivery.job.payload))
                if payload is None:
                    await queue.fail(delivery, "it was too hard", retry=False)
                else:
                    await answer_one(queue, delivery, payload)

    task = asyncio.create_task(work())
    try:
        yield taken
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def honest(engine: FakeEngine, request: ScoreRequest, **changes: Any) -> bytes:
    """The engine's own reply, with other provenance where `changes` says so."""
    blocks, usage = await engine.score(request.groups(), request.signals, request.top_k)
    provenance = engine.provenance.model_copy(update=changes)
    # Not validated: a broken teacher's would not be either.
    return encode_reply(ScoreReply.model_construct(scores=tuple(blocks), provenance=provenance, usage=usage))
