"""Replicas of one model as one engine: work goes to the least busy, who fails or disagrees is quarantined.

Every replica passes the start-up probe by itself and must be the same teacher as the others: its provenance, its
capabilities and its answer to a known sequence. A quarantined one is probed again, with growing pauses, and takes work
when it passes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from numpy.typing import NDArray

from tutelage.engines.base import Engine, LimitedEngine, Tokenizer
from tutelage.engines.replicas.race import Outcome, race
from tutelage.engines.replicas.replica import Event, Replica, Standing
from tutelage.engines.upstream.calls import all_of
from tutelage.engines.upstream.failures import UpstreamAway, UpstreamFailed, spent_on
from tutelage_client.errors import TutelageError
from tutelage_client.wire import (
    Breaker,
    Capabilities,
    GenerateRequest,
    Generation,
    Overload,
    Provenance,
    ReplicaView,
    ScoreGroup,
    Signal,
    TokenScores,
    Usage,
)

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Answer = tuple[Result, Usage]
Listener = Callable[[Replica, Event], None]

HEDGED_SHARE = 0.1  # of all requests, at most
_LONGEST_PAUSE_S = 60.0
_IN_DOUBT = (
    "no more than half of the replicas score a known sequence alike, so none is believed; leave out the wrong one"
)


class ReplicatedEngine:
    """`replicas` behind the contract of `base.Engine`. Calls may overlap.

    hedge_after_s: a request that takes longer is put to a second replica too; None: never
    first_pause_s: before a quarantined replica is probed again; doubles with each probe that fails
    """

    def __init__(
        self, replicas: Sequence[Replica], hedge_after_s: float | None = None, first_pause_s: float = 1.0
    ) -> None:
        self.replicas = replicas
        self._hedge_after_s = hedge_after_s
        self._first_pause_s = first_pause_s
        self._standing: Standing | None = None
        self._listener: Listener | None = None
        self._asked = 0
        self._hedged = 0
        self._probing: set[asyncio.Task[None]] = set()

    @property
    def calls_at_once(self) -> int:
        return sum(replica.engine.calls_at_once for replica in self.replicas)

    @property
    def capabilities(self) -> Capabilities:
        return self._standing.capabilities if self._standing else self.replicas[0].engine.capabilities

    @property
    def provenance(self) -> Provenance:
        return self._standing.provenance if self._standing else self.replicas[0].engine.provenance

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self.replicas[0].engine.tokenizer

    @property
    def overload(self) -> Overload | None:
        """Of the one that may take work first, where all are over their limits."""
        engines = [replica.engine for replica in self.replicas]
        found = [one.overload for one in engines if isinstance(one, LimitedEngine) and one.overload is not None]
        return min(found, key=lambda one: one.retry_after_s) if len(found) == len(engines) else None

    @property
    def calls(self) -> None:
        """Each replica has its own."""

    @property
    def breaker(self) -> Breaker | None:
        """None: each replica has its own, which `views` tell."""
        return None

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of everything that is counted."""
        self._listener = listener

    def views(self) -> tuple[ReplicaView, ...]:
        return tuple(replica.view() for replica in self.replicas)

    async def connect(self) -> dict[str, Any]:
        """Probe every replica that takes no work. The first time, the answer that more than half of them give is true.

        Raises:
            UpstreamAway: none is left, or no answer is more than half of them's.
        """
        out = [replica for replica in self.replicas if not replica.up]
        found = await asyncio.gather(*(replica.examine() for replica in out), return_exceptions=True)
        passed = [standing for standing in found if isinstance(standing, Standing)]
        if self._standing is None and passed:
            self._standing = _believed(passed)
        for replica, standing in zip(out, found, strict=True):
            self._judge(replica, standing)
        if not any(replica.up for replica in self.replicas) or self._standing is None:
            raise UpstreamAway(self._why_none())
        return self._standing.facts

    async def compare(self) -> None:
        """Ask every replica that takes work the known question again; who answers otherwise by now is quarantined.

        Raises:
            UpstreamAway: none is left.
        """
        working = [replica for replica in self.replicas if replica.up]
        found = await asyncio.gather(*(replica.shown() for replica in working), return_exceptions=True)
        for replica, standing in zip(working, found, strict=True):
            self._judge(replica, standing)
        if not any(replica.up for replica in self.replicas):
            raise UpstreamAway(self._why_none())

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
    ) -> tuple[list[TokenScores], Usage]:
        """Each group goes to the replica that is least busy then."""
        calls = [
            self._answered(_tokens(group), lambda engine, group=group: engine.score([group], signals, top_k))
            for group in groups
        ]
        answers = await all_of(calls)
        return [block for blocks, _ in answers for block in blocks], sum((usage for _, usage in answers), Usage())

    async def generate(self, request: GenerateRequest) -> tuple[list[list[Generation]], Usage]:
        """All of a request at one replica, as its seeds count up over the prompts."""
        tokens = len(request.prompts) * request.n * request.max_tokens
        return await self._answered(tokens, lambda engine: engine.generate(request))

    def head(self) -> dict[str, NDArray[Any]]:
        return self.replicas[0].engine.head()

    async def close(self) -> None:
        for task in self._probing:
            task.cancel()
        await asyncio.gather(*self._probing, return_exceptions=True)
        for replica in self.replicas:
            await replica.engine.close()

    async def _answered(self, tokens: int, question: Callable[[Engine], Awaitable[Answer[Result]]]) -> Answer[Result]:
        """Who fails where another one then answers is quarantined; who cannot be reached is in any case.

        The usage counts what those cost who failed.
        Raises:
            UpstreamAway: none is left. BadScores, UpstreamFailed: what the first said, where both failed.
        """
        self._asked += 1
        provenance = self.provenance

        def begin(replica: Replica) -> asyncio.Task[Answer[Result]]:
            return replica.begin(tokens, question, provenance)

        outcome = await race(begin, self._pick, self._pick_hedge, self._hedge_after_s)
        for replica, error in outcome.failed:
            self._count(replica, "failed")
            if replica.up and (outcome.winner is not None or isinstance(error, UpstreamAway)):
                self._quarantine(replica, str(error))
        if outcome.winner is not None and outcome.by_hedge:
            self._count(outcome.winner, "hedge_won")
        return self._result(outcome)

    def _result(self, outcome: Outcome[Answer[Result]]) -> Answer[Result]:
        spent = spent_on(error for _, error in outcome.failed)
        if outcome.winner is not None:
            assert outcome.answer is not None
            said, usage = outcome.answer
            return said, usage + spent
        if not any(replica.up for replica in self.replicas):
            raise UpstreamAway(self._why_none(), spent)
        error = outcome.failed[0][1]
        if isinstance(error, UpstreamFailed):
            # Not as one that is away, which would say that the teacher is, and others are there.
            raise UpstreamFailed(str(error), spent) from error
        raise error

    def _pick(self, asked: Sequence[Replica]) -> Replica | None:
        """The least busy of those that take work; among equals the one that was asked least."""
        free = [replica for replica in self.replicas if replica.up and replica not in asked]
        if not free:
            return None
        replica = min(free, key=lambda one: (one.outstanding_tokens, one.counts["asked"]))
        self._count(replica, "asked")
        return replica

    def _pick_hedge(self, asked: Sequence[Replica]) -> Replica | None:
        if self._hedged + 1 > HEDGED_SHARE * self._asked:
            return None
        replica = self._pick(asked)
        if replica is not None:
            self._hedged += 1
            self._count(replica, "hedged")
        return replica

    def _judge(self, replica: Replica, found: Standing | BaseException) -> None:
        """Let a replica work, or say why not."""
        if not isinstance(found, Standing):
            if not isinstance(found, TutelageError):
                raise found
            self._quarantine(replica, str(found))
            return
        differs = _IN_DOUBT if self._standing is None else found.differs_from(self._standing)
        if differs is not None:
            self._quarantine(replica, differs)
        elif not replica.up:
            replica.reason = None
            log.info("a replica takes work", extra={"replica": replica.name})
            self._count(replica, "admitted")

    def _quarantine(self, replica: Replica, reason: str) -> None:
        """No more work goes there until it passes its probe again."""
        began = replica.up or replica.counts["quarantined"] == 0
        replica.reason = reason
        if began:
            log.warning("a replica is quarantined", extra={"replica": replica.name, "reason": reason})
            self._count(replica, "quarantined")
            replica.give_up()
            task = asyncio.create_task(self._readmit(replica))
            self._probing.add(task)
            task.add_done_callback(self._probing.discard)

    async def _readmit(self, replica: Replica) -> None:
        pause_s = self._first_pause_s
        while not replica.up:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            if replica.up or self._standing is None:
                continue
            try:
                found: Standing | BaseException = await replica.examine()
            except TutelageError as error:
                found = error
            self._judge(replica, found)

    def _why_none(self) -> str:
        return "no replica is left: " + "; ".join(f"{one.name}: {one.reason}" for one in self.replicas)

    def _count(self, replica: Replica, event: Event) -> None:
        replica.counts[event] += 1
        if self._listener is not None:
            self._listener(replica, event)


def _believed(passed: Sequence[Standing]) -> Standing | None:
    """What most of them show; None where no more than half score alike, so that anyone may be the one that is wrong."""

    def alike(one: Standing) -> int:
        return sum(one.scores_otherwise(other) is None for other in passed)

    best = max(passed, key=lambda one: (alike(one), sum(one.differs_from(other) is None for other in passed)))
    return best if 2 * alike(best) > len(passed) else None


def _tokens(group: ScoreGroup) -> int:
    return len(group.prompt_ids) + group.scored_tokens
