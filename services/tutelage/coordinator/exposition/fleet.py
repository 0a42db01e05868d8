"""Runs by number, teachers, queues and the disk, as samples."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.coordinator.db import now
from tutelage.coordinator.exposition.families import Sample
from tutelage.coordinator.tables import RunRow, TeacherRow
from tutelage.coordinator.teachers import FRESH_S
from tutelage.queue import Depth, Queue
from tutelage_client.errors import ServiceUnreachable
from tutelage_client.wire import RunStatus


def counted(session: Session) -> Iterator[Sample]:
    found = dict(session.execute(select(RunRow.status, func.count()).group_by(RunRow.status)).all())
    for status in RunStatus:
        yield Sample("tutelage_runs", (status,), found.get(status, 0))


def registered(session: Session) -> dict[str, bool]:
    """Whether each teacher of the list is available."""
    rows = session.execute(select(TeacherRow.name, now() - TeacherRow.seen_at <= FRESH_S).order_by(TeacherRow.name))
    return {name: bool(available) for name, available in rows}


async def queues(queue: Queue, names: Collection[str], within_s: float) -> list[Sample]:
    """All that is known of them, or that the queue does not answer in time."""
    try:
        async with asyncio.timeout(within_s):
            depths = await asyncio.gather(*(queue.depth(name) for name in names))
            memory = await queue.memory()
    except (TimeoutError, ServiceUnreachable):
        return [Sample("tutelage_queue_up", (), 0)]
    found = [Sample("tutelage_queue_up", (), 1)]
    for name, depth in zip(names, depths, strict=True):
        found += _queue(name, depth)
    if memory is not None:
        found.append(Sample("tutelage_redis_memory_bytes", (), memory.used_bytes))
        if memory.limit_bytes is not None:
            found.append(Sample("tutelage_redis_memory_limit_bytes", (), memory.limit_bytes))
    return found


def _queue(name: str, depth: Depth) -> Iterator[Sample]:
    yield Sample("tutelage_queue_depth", (name,), depth.waiting)
    yield Sample("tutelage_queue_pending", (name,), depth.leased)
    yield Sample("tutelage_queue_oldest_age_seconds", (name,), depth.oldest_s or 0.0)
    yield Sample("tutelage_queue_redeliveries_total", (name,), depth.redelivered)
    yield Sample("tutelage_queue_duplicates_dropped_total", (name,), depth.duplicates)
    yield Sample("tutelage_queue_dead_letters_total", (name,), depth.buried)
    yield Sample("tutelage_dead_letters", (name,), depth.dead)


def disk(folder: Path) -> Iterator[Sample]:
    """Nothing where it cannot be asked."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return
    yield Sample("tutelage_artefacts_size_bytes", (), usage.total)
    yield Sample("tutelage_artefacts_free_bytes", (), usage.free)
