"""What a run tells beside the coordinator: TensorBoard's files always, and a tracker where the trainer has one.

Each is fed by a thread of its own, so that none holds learning up. One that fails is told once and left alone from then
on; a run does not end by it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any, Protocol, Self

from tutelage.trainer.session import Session

log = logging.getLogger(__name__)
MOST_ROWS = 1000  # that wait for a tracker
LAST_S = 10.0  # for what is still to be handed over when an attempt ends


@dataclass(frozen=True, slots=True)
class About:
    """One attempt. begins_at: the step that it goes on behind; folder: of the run's artefacts"""

    run_id: str
    epoch: int
    spec: Mapping[str, Any]
    folder: Path
    begins_at: int = 0


class Tracker(Protocol):
    """Takes the rows of one attempt; whatever it raises ends its part in it."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


Open = Callable[[About], Tracker]


class Feed:
    """One tracker and its thread. failed: why it gets no rows any more"""

    def __init__(self, name: str, opening: Open, about: About) -> None:
        self.name = name
        self.failed: str | None = None
        self._rows: Queue[tuple[int, Mapping[str, float]] | None] = Queue(MOST_ROWS)
        self._thread = Thread(target=self._work, args=(opening, about), name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def give(self, step: int, metrics: Mapping[str, float]) -> None:
        self._put((step, metrics))

    def end(self) -> None:
        """Hand over what waits, for as long as that may take."""
        self._put(None)
        self._thread.join(LAST_S)
        if self._thread.is_alive():
            self.failed = self.failed or f"it did not take the last rows within {LAST_S:g} s"

    def _put(self, row: tuple[int, Mapping[str, float]] | None) -> None:
        try:
            self._rows.put_nowait(row)
        except Full:
            self.failed = self.failed or f"{MOST_ROWS} rows wait for it"

    def _work(self, opening: Open, about: About) -> None:
        try:
            with closing(opening(about)) as tracker:
                while (row := self._rows.get()) is not None:
                    tracker.log(*row)
        except Exception as error:  # of a library, of a server, of the disk
            self.failed = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
            log.exception("a tracker failed", extra={"run_id": about.run_id, "tracker": self.name})


class Trackers:
    """Whatever follows one attempt. Leaving the block hands over what waits."""

    def __init__(self, feeds: Sequence[Feed] = ()) -> None:
        self._feeds = list(feeds)

    async def tell(self, session: Session, step: int, metrics: Mapping[str, float | None]) -> None:
        """Hand a row over; what is unknown is left out."""
        known = {name: value for name, value in metrics.items() if value is not None}
        for feed in [feed for feed in self._feeds if feed.failed is not None]:
            self._feeds.remove(feed)
            await session.event("log", f"{feed.name} gets no more of this run: {feed.failed}", "warning")
        for feed in self._feeds:
            feed.give(step, known)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for feed in self._feeds:
            await asyncio.to_thread(feed.end)
            if feed.failed is not None:
                log.warning("a tracker lacks rows", extra={"tracker": feed.name, "reason": feed.failed})
