"""Replicas of one model as one engine: work goes to the least busy, and to another one where that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from numpy.typing import NDArray

from tutelage.engines.base import Engine, LimitedEngine, Tokenizer
from tutelage.engines.replicas.race import Outcome, race
from tutelage.engines.replicas.replica import Replica
from tutelage.engines.replicas.roster import Roster
from tutelage.engines.upstream.calls import all_of
from tutelage.engines.upstream.failures import BadAnswer, UpstreamAway, UpstreamFailed, spent_on
from tutelage_client.errors import BadScores
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

Result = TypeVar("Result")
Answer = tuple[Result, Usage]

HEDGED_SHARE = 0.1  # of all requests, at most


class ReplicatedEngine:
    """`replicas` behind the contract of `base.Engine`. Calls may overlap.

    hedge_after_s: a request that takes longer is put to a second replica too; None: never
    first_pause_s: before a quarantined replica is probed again; doubles with each probe that fails
    """

    def __init__(
        self, replicas: Sequence[Replica], hedge_after_s: float | None = None, first_pause_s: float = 1.0
    ) -> None:
        self.replicas = replicas
        self._roster = Roster(replicas, first_pause_s)
        self._hedge_after_s = hedge_after_s
        self._asked = 0
        self._hedged = 0

    @property
    def calls_at_once(self) -> int:
        return sum(replica.engine.calls_at_once for replica in self.replicas)

    @property
    def capabilities(self) -> Capabilities:
        return (self._roster.standing or self.replicas[0].engine).capabilities

    @property
    def provenance(self) -> Provenance:
        return (self._roster.standing or self.replicas[0].engine).provenance

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

    def views(self) -> tuple[ReplicaView, ...]:
        return tuple(replica.view() for replica in self.replicas)

    async def connect(self) -> dict[str, Any]:
        """See `Roster.admit`."""
        return (await self._roster.admit()).facts

    async def compare(self) -> None:
        """See `Roster.compare`."""
        await self._roster.compare()

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
        await self._roster.close()
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
            replica.count("failed")
            if replica.up and (outcome.winner is not None or isinstance(error, UpstreamAway)):
                self._roster.quarantine(replica, str(error))
        if outcome.winner is not None and outcome.by_hedge:
            outcome.winner.count("hedge_won")
        return self._result(outcome)

    def _result(self, outcome: Outcome[Answer[Result]]) -> Answer[Result]:
        spent = spent_on(error for _, error in outcome.failed)
        if outcome.winner is not None:
            assert outcome.answer is not None
            said, usage = outcome.answer
            return said, usage + spent
        self._roster.check_any(spent)
        error = outcome.failed[0][1]
        if isinstance(error, UpstreamFailed):
            # Not as one that is away, which would say that the teacher is, and others are there.
            raise UpstreamFailed(str(error), spent) from error
        if isinstance(error, BadScores):
            raise BadAnswer(error, spent) from error
        raise error

    def _pick(self, asked: Sequence[Replica]) -> Replica | None:
        """The least busy of those that take work; among equals the one that was asked least."""
        free = [replica for replica in self._roster.working if replica not in asked]
        if not free:
            return None
        replica = min(free, key=lambda one: (one.outstanding_tokens, one.counts["asked"]))
        replica.count("asked")
        return replica

    def _pick_hedge(self, asked: Sequence[Replica]) -> Replica | None:
        if self._hedged + 1 > HEDGED_SHARE * self._asked:
            return None
        replica = self._pick(asked)
        if replica is not None:
            self._hedged += 1
            replica.count("hedged")
        return replica


def _tokens(group: ScoreGroup) -> int:
    return len(group.prompt_ids) + group.scored_tokens
