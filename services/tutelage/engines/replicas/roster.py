"""Which replicas take work: those that are the same teacher. Who fails or disagrees is quarantined.

Every replica passes the start-up probe by itself and must be the same teacher as the others: its provenance, its
capabilities and its answer to a known sequence. A quarantined one is probed again, with growing pauses, and takes work
when it passes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from tutelage.engines.replicas.replica import Replica, Standing
from tutelage.engines.upstream.failures import UpstreamAway
from tutelage_client.errors import TutelageError
from tutelage_client.wire import Usage

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 60.0
_IN_DOUBT = (
    "no more than half of the replicas score a known sequence alike, so none is believed; leave out the wrong one"
)


class Roster:
    """The replicas, and what all of them must show.

    standing: what those show that take work, None before the first of them does
    first_pause_s: before a quarantined replica is probed again; doubles with each probe that fails
    """

    def __init__(self, replicas: Sequence[Replica], first_pause_s: float) -> None:
        self.standing: Standing | None = None
        self._replicas = replicas
        self._first_pause_s = first_pause_s
        self._probing: set[asyncio.Task[None]] = set()

    @property
    def working(self) -> list[Replica]:
        return [replica for replica in self._replicas if replica.up]

    def check_any(self, spent: Usage | None = None) -> None:
        """Raises: UpstreamAway: no replica takes work. spent: what that bills all the same"""
        if not self.working:
            reasons = "; ".join(f"{one.name}: {one.reason}" for one in self._replicas)
            raise UpstreamAway(f"no replica is left: {reasons}", spent)

    async def admit(self) -> Standing:
        """Probe every replica that takes no work. The first time, the answer that more than half of them give is true.

        It is what all of them show then.
        Raises:
            UpstreamAway: none is left, or no answer is more than half of them's.
        """
        out = [replica for replica in self._replicas if not replica.up]
        found = await _each(out, Replica.examine)
        passed = [standing for standing in found if isinstance(standing, Standing)]
        if self.standing is None and passed:
            self.standing = _believed(passed)
        self._judge_all(out, found)
        assert self.standing is not None, "who takes work was held to it"
        return self.standing

    async def compare(self) -> None:
        """Ask every replica that takes work the known question again; who answers otherwise by now is quarantined.

        Raises:
            UpstreamAway: none is left.
        """
        working = self.working
        self._judge_all(working, await _each(working, Replica.shown))

    def quarantine(self, replica: Replica, reason: str) -> None:
        """No more work goes there until it passes its probe again."""
        began = replica.up or replica.counts["quarantined"] == 0
        replica.reason = reason
        if began:
            log.warning("a replica is quarantined", extra={"replica": replica.name, "reason": reason})
            replica.count("quarantined")
            replica.give_up()
            task = asyncio.create_task(self._readmit(replica))
            self._probing.add(task)
            task.add_done_callback(self._probing.discard)

    async def close(self) -> None:
        """Probe no more."""
        for task in self._probing:
            task.cancel()
        await asyncio.gather(*self._probing, return_exceptions=True)

    def _judge_all(self, replicas: Sequence[Replica], found: Sequence[Standing | BaseException]) -> None:
        for replica, standing in zip(replicas, found, strict=True):
            self._judge(replica, standing)
        self.check_any()

    def _judge(self, replica: Replica, found: Standing | BaseException) -> None:
        """Let a replica work, or say why not."""
        if not isinstance(found, Standing):
            if not isinstance(found, TutelageError):
                raise found
            self.quarantine(replica, str(found))
            return
        differs = _IN_DOUBT if self.standing is None else found.differs_from(self.standing)
        if differs is not None:
            self.quarantine(replica, differs)
        elif not replica.up:
            replica.reason = None
            log.info("a replica takes work", extra={"replica": replica.name})
            replica.count("admitted")

    async def _readmit(self, replica: Replica) -> None:
        pause_s = self._first_pause_s
        while not replica.up:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            if replica.up or self.standing is None:
                continue
            (found,) = await _each([replica], Replica.examine)
            self._judge(replica, found)


async def _each(
    replicas: Sequence[Replica], ask: Callable[[Replica], Awaitable[Standing]]
) -> list[Standing | BaseException]:
    """What each shows, or why it shows nothing."""
    return await asyncio.gather(*map(ask, replicas), return_exceptions=True)


def _believed(passed: Sequence[Standing]) -> Standing | None:
    """What most of them show; None where no more than half score alike, so that anyone may be the one that is wrong."""

    def alike(one: Standing) -> int:
        return sum(one.scores_otherwise(other) is None for other in passed)

    best = max(passed, key=lambda one: (alike(one), sum(one.differs_from(other) is None for other in passed)))
    return best if 2 * alike(best) > len(passed) else None
