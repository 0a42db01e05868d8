"""A run's events as server-sent events: from the table, resumed by number, ended with the run or its reader's key.

However many streams are open, one poller a process asks the database what is new, in one query for all runs that are
followed, and wakes the streams of those where something is. A stream that is further behind than what the poller holds,
at its start or because its reader is slow, catches up from the table at its own pace.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from fastapi.sse import format_sse_event
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator.db import Database
from tutelage.coordinator.events import events
from tutelage.coordinator.keys import refused
from tutelage.coordinator.tables import RunRow
from tutelage.telemetry import CoordinatorMetrics

log = logging.getLogger(__name__)
POLL_S = 0.25
KEEP_ALIVE_S = 15.0
RECONNECT_MS = 1000
BATCH = 200

Frame = tuple[int, bytes]  # an event's number and the event as it is sent


@dataclass
class Feed:
    """What the poller knows of one run that is followed.

    newest: number of its last event, None before the first look; frames: of its last events, at most BATCH
    ended: the run is final and `newest` is the last event that there will be; changed: set at the next news
    """

    readers: int = 0
    newest: int | None = None
    frames: list[Frame] = field(default_factory=list)
    ended: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def beyond(self, after: int) -> list[Frame] | None:
        """The frames above `after`, or None where only the table has them."""
        if self.newest is None:
            return None
        first = self.frames[0][0] if self.frames else self.newest + 1
        return [frame for frame in self.frames if frame[0] > after] if first <= after + 1 else None

    def take(self, look: Look) -> None:
        """Go on to what was seen."""
        is_news = self.newest is None or bool(look.frames) or look.is_final
        self.frames = [*self.frames, *look.frames][-BATCH:]
        self.newest = self.frames[-1][0] if self.frames else look.newest
        self.ended = look.is_final and self.newest >= look.newest
        if is_news:
            self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(frozen=True)
class Look:
    """One look at a run: the number of its newest event, whether it was final then, and frames that are new."""

    newest: int
    is_final: bool
    frames: list[Frame]


class Streams:
    """The streams of one process. The poller runs while there is one.

    keep_alive_s: after so long without an event a stream sends a comment, lest a proxy take it for dead
    """

    def __init__(self, database: Database, metrics: CoordinatorMetrics, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self._database = database
        self._metrics = metrics
        self._keep_alive_s = keep_alive_s
        self._feeds: dict[str, Feed] = {}
        self._keys: Counter[str] = Counter()
        self._refused: set[str] = set()
        self._poller: asyncio.Task[None] | None = None

    async def follow(self, run_id: str, after: int, stopping: asyncio.Event, key: str) -> AsyncIterator[bytes]:
        """Frames of every event above `after`.

        They end when the run is final and all is sent, when this process stops, and when the key of this id, whose
        holder reads them, is revoked or expires.
        """
        yield format_sse_event(retry=RECONNECT_MS)
        with self._joined(run_id, key, stopping) as (feed, poller):
            while not stopping.is_set() and key not in self._refused:
                if poller.done():
                    poller.result()  # why it died
                changed, frames = feed.changed, feed.beyond(after)
                if frames is None:
                    frames = await run_in_threadpool(_read, self._database, run_id, after)
                for number, frame in frames:
                    yield frame
                    after = number
                if not frames:
                    if feed.ended:
                        return
                    if not await _set_within(changed, self._keep_alive_s):
                        yield format_sse_event(comment="still here")
            if key in self._refused:
                self._metrics.sse_dropped.inc()

    @contextmanager
    def _joined(self, run_id: str, key: str, stopping: asyncio.Event) -> Iterator[tuple[Feed, asyncio.Task[None]]]:
        feed = self._feeds.setdefault(run_id, Feed())
        feed.readers += 1
        self._keys[key] += 1
        self._metrics.sse_clients.inc()
        poller = self._poller
        if poller is None or poller.done():
            poller = self._poller = asyncio.create_task(self._poll(stopping))
        try:
            yield feed, poller
        finally:
            self._metrics.sse_clients.dec()
            feed.readers -= 1
            self._keys -= Counter([key])  # which forgets the last of its kind
            if feed.readers == 0:
                del self._feeds[run_id]
            if not self._feeds:
                poller.cancel()
                self._poller = None

    async def _poll(self, stopping: asyncio.Event) -> None:
        try:
            while not stopping.is_set():
                known = {run_id: feed.newest for run_id, feed in self._feeds.items()}
                try:
                    looks, lost = await run_in_threadpool(_look, self._database, known, set(self._keys))
                except SQLAlchemyError as error:
                    log.warning("events wait until the database answers", extra={"error": type(error).__name__})
                else:
                    for run_id, look in looks.items():
                        if feed := self._feeds.get(run_id):
                            feed.take(look)
                    self._refuse(lost)
                await _set_within(stopping, POLL_S)
        finally:
            for feed in self._feeds.values():
                feed.wake()

    def _refuse(self, keys: set[str]) -> None:
        """Wake the streams, so that those of keys that have just been lost end."""
        before, self._refused = self._refused, keys
        if keys - before:
            for feed in self._feeds.values():
                feed.wake()


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
    return event.is_set()


def _look(
    database: Database, known: Mapping[str, int | None], keys: Collection[str]
) -> tuple[dict[str, Look], set[str]]:
    """At the runs, and which of these keys are refused by now.

    The status is read before the events: those read after it was final are all there will ever be.
    """
    looks: dict[str, Look] = {}
    with database.read() as session:
        runs = select(RunRow.id, RunRow.last_event, RunRow.status).where(RunRow.id.in_(known))
        for run_id, newest, status in session.execute(runs).all():
            before = known[run_id]
            frames = [] if before is None or before == newest else _frames(session, run_id, before)
            looks[run_id] = Look(newest, status.final, frames)
        return looks, refused(session, keys)


def _read(database: Database, run_id: str, after: int) -> list[Frame]:
    with database.read() as session:
        return _frames(session, run_id, after)


def _frames(session: Session, run_id: str, after: int) -> list[Frame]:
    found = events(session, run_id, str(after), BATCH).data
    return [(e.id, format_sse_event(id=str(e.id), event=e.type, data_str=e.model_dump_json())) for e in found]
