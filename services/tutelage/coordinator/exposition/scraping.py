"""What a scrape asks, and who is told what it finds.

Three statements for however many runs there are, and one question a queue. What does not answer is said to be down: a
scrape never fails for it, as what the process counts is wanted then above all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from fastapi import Request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator.callers import Gate
from tutelage.coordinator.db import Database
from tutelage.coordinator.exposition import fleet, runs
from tutelage.coordinator.exposition.families import Sample, grouped
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.teachers import queues_in
from tutelage.queue import Queue
from tutelage_client.wire import Scope

QUEUE_S = 1.0


class Scraping:
    """Answers GET /metrics. The process's own series are for everybody; the rest has names of runs and teachers.

    registry: where the process counts
    """

    def __init__(
        self, database: Database, settings: Settings, queue: Queue | None, gate: Gate, registry: CollectorRegistry
    ) -> None:
        self._database = database
        self._settings = settings
        self._queue = queue
        self._gate = gate
        self._registry = registry

    async def __call__(self, request: Request) -> bytes:
        """Raises: Refused: 401, 403; ServiceProblem: 429 `rate_limited`."""
        try:
            samples = await self._everything() if await self._gate.opens(request, Scope.METRICS_READ) else []
        except (OperationalError, InterfaceError):
            samples = [Sample("tutelage_database_up", (), 0)]
        return await run_in_threadpool(self._text, samples)

    async def _everything(self) -> list[Sample]:
        samples, names = await run_in_threadpool(self._look)
        if self._queue is not None:
            samples += await fleet.queues(self._queue, names, QUEUE_S)
        return samples

    def _look(self) -> tuple[list[Sample], Sequence[str]]:
        """What the database and the disk say, and the names of the queues that there may be."""
        with self._database.read() as session:
            going_on = runs.going_on(session)
            available = fleet.registered(session)
            counted = list(fleet.counted(session))
        told = [Sample("tutelage_database_up", (), 1), *counted, *runs.told_of(going_on, self._settings.lease_s)]
        told += [Sample("tutelage_teacher_available", (name,), up) for name, up in available.items()]
        told += fleet.disk(self._settings.data_dir)
        asked = {name for run in going_on for name in queues_in(run.spec)}
        return told, sorted(asked | available.keys())

    def _text(self, samples: Iterable[Sample]) -> bytes:
        return generate_latest(_Together(self._registry, grouped(samples)))


class _Together(Collector):
    """What a registry holds, and more."""

    def __init__(self, registry: CollectorRegistry, more: Iterable[Metric]) -> None:
        self._registry = registry
        self._more = more

    def collect(self) -> Iterable[Metric]:
        return chain(self._registry.collect(), self._more)
