"""Whether the queue's server takes a run's questions and gives its answers."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from tutelage.trainer.session import Session
from tutelage_client.errors import ServiceUnreachable

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Way = Literal["questions", "answers", "texts"]
CONDITION = "queue_available"
# A lost connection that is there again sooner is no news.
TOLD_AFTER_S = 3.0
LOOK_S = 0.5


@dataclass(slots=True)
class Refusal:
    """since_s: by the monotonic clock; reason: the latest; told: it is in the run's events"""

    since_s: float
    reason: str
    told: bool = False


@dataclass
class Access:
    """What the server refuses now, and what it refused and grants again, until that is told."""

    refused: dict[Way, Refusal] = field(default_factory=dict)
    over: dict[Way, Refusal] = field(default_factory=dict)

    def refuse(self, way: Way, reason: str) -> None:
        self.refused.setdefault(way, self.over.pop(way, None) or Refusal(time.monotonic(), reason)).reason = reason

    def grant(self, way: Way) -> None:
        if (refusal := self.refused.pop(way, None)) is not None and refusal.told:
            self.over[way] = refusal

    async def insist(self, way: Way, call: Callable[[], Awaitable[Result]]) -> Result:
        """What the queue says to a call that may be repeated, however long it is away: nothing is lost by waiting."""
        delay_s = 0.1
        while True:
            try:
                done = await call()
            except ServiceUnreachable as error:
                log.warning("queue not reachable, waiting", extra={"reason": str(error)})
                self.refuse(way, str(error))
            else:
                self.grant(way)
                return done
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))
            delay_s = min(delay_s * 2, 5.0)

    async def tell_on(self, session: Session) -> None:
        """For as long as it is not cancelled: who finds the queue away may be waiting for it."""
        while True:
            await self.tell(session)
            await asyncio.sleep(LOOK_S)

    async def tell(self, session: Session) -> None:
        """One event when it refuses for a while, one when it is over, and the run's condition in between."""
        now_s = time.monotonic()
        for way, refusal in self.refused.items():
            if not refusal.told and now_s - refusal.since_s >= TOLD_AFTER_S:
                refusal.told = True
                session.conditions[CONDITION] = False
                message = (
                    f"the queue does not serve the run's {way}: {refusal.reason}; the run waits and goes on by itself"
                )
                await session.event("log", message, "error")
                return
        for way, refusal in list(self.over.items()):
            del self.over[way]
            session.conditions[CONDITION] = not any(each.told for each in self.refused.values())
            await session.event("log", f"the queue serves the run's {way} again, after {now_s - refusal.since_s:.0f} s")
