"""A run's events as server-sent events: from the table, resumed by number, ended with the run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from time import monotonic

from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator.db import Database
from tutelage.coordinator.events import events
from tutelage.coordinator.runs import find
from tutelage_client.wire import EventView

POLL_S = 0.25
KEEP_ALIVE_S = 15.0
RECONNECT_MS = 1000
BATCH = 200


async def follow(database: Database, run_id: str, after: int, stopping: asyncio.Event) -> AsyncIterator[bytes]:
    """Frames of every event above `after`, until the run is final and all is sent, or this process stops."""
    yield format_sse_event(retry=RECONNECT_MS)
    sent_at = monotonic()
    while not stopping.is_set():
        is_final, batch = await run_in_threadpool(_next, database, run_id, after)
        for event in batch:
            yield format_sse_event(id=str(event.id), event=event.type, data_str=event.model_dump_json())
            after, sent_at = event.id, monotonic()
        if is_final and not batch:
            return
        if not batch:
            if monotonic() - sent_at >= KEEP_ALIVE_S:
                yield format_sse_event(comment="still here")
                sent_at = monotonic()
            await _pause(stopping)


async def _pause(stopping: asyncio.Event) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), POLL_S)


def _next(database: Database, run_id: str, after: int) -> tuple[bool, list[EventView]]:
    """The status is read first: once it is final, the events read after it are all there will ever be."""
    with database.read() as session:
        is_final = find(session, run_id).status.final
        return is_final, events(session, run_id, str(after), BATCH).data
