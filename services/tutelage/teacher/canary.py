"""The known question, asked again and again while the teacher works: idle, or busy with other things."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.engines import Engine
from tutelage.engines.known import KnownAnswer, ask_known, changed, known_answer
from tutelage.engines.replicas import ReplicatedEngine
from tutelage.teacher.batcher import Batcher, Scored
from tutelage_client.errors import BadScores
from tutelage_client.wire import ScoreGroup, Signal


class Canary:
    """Asks `engine` in its turn, in a call of its own that nobody pays. known: the first answer, which stays true"""

    def __init__(self, engine: Engine, batcher: Batcher) -> None:
        self._engine = engine
        self._batcher = batcher
        self.known: KnownAnswer | None = None

    async def look(self) -> None:
        """Ask again; of several upstreams each, which then agree or are quarantined.

        Raises:
            BadScores: another answer than the first, or the same of every token. TutelageError: there was none.
        """
        if isinstance(self._engine, ReplicatedEngine):
            await self._engine.compare()
            return
        block = await ask_known(self, self._engine.capabilities)
        self.hold(() if block is None else known_answer(block))

    def hold(self, answer: KnownAnswer) -> None:
        """Hold an answer to the first one. Raises: BadScores: it is another."""
        if self.known is None:
            self.known = answer
        change = changed(self.known, answer, self._engine.provenance.dtype)
        if change is not None:
            raise BadScores(
                f"a known sequence is scored differently than at the start ({change}): another model answers, or its "
                "weights changed; restart this teacher if that is meant"
            )

    async def score(self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None) -> Scored:
        """Apart from other work, whose last bits must not depend on whether it was asked beside this."""
        return await self._batcher.score(groups, signals, top_k, own_batch=True)
