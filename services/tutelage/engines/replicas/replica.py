"""One of several upstreams, and what it has shown of itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal, TypeVar

from tutelage.engines.base import Engine, LimitedEngine
from tutelage.engines.known import KnownAnswer, ask_known, changed, known_answer
from tutelage.engines.latency import Latencies
from tutelage.engines.probe import Directly, probe
from tutelage_client.errors import BadScores
from tutelage_client.wire import Capabilities, Provenance, ReplicaView

Result = TypeVar("Result")
Event = Literal["asked", "failed", "quarantined", "admitted", "hedged", "hedge_won"]
Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a replica showed in its probe. answer: to the known question, empty where it does not score"""

    provenance: Provenance
    capabilities: Capabilities
    answer: KnownAnswer
    facts: dict[str, Any]

    def differs_from(self, other: Standing) -> str | None:
        """Why these are not the same teacher, None if they are."""
        for ours, theirs in ((self.provenance, other.provenance), (self.capabilities, other.capabilities)):
            for name, value in ours:
                if (wanted := getattr(theirs, name)) != value:
                    return f"its {name} is {value!r}, the others' is {wanted!r}"
        change = self.scores_otherwise(other)
        return None if change is None else f"it scores a known sequence differently from the others ({change})"

    def scores_otherwise(self, other: Standing) -> str | None:
        """What is off between the answers, None if nothing is."""
        return changed(other.answer, self.answer, self.provenance.dtype)


class Replica:
    """An engine that others can stand in for. reason: why it takes no work, None while it does"""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        self.reason: str | None = "the start-up probe has not run yet"
        self.outstanding_tokens = 0
        self.counts: Counter[Event] = Counter()
        self._listener: Listener | None = None
        self._latencies = Latencies()
        self._working: dict[asyncio.Task[Any], int] = {}

    @property
    def up(self) -> bool:
        return self.reason is None

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of everything that is counted."""
        self._listener = listener

    def count(self, event: Event) -> None:
        self.counts[event] += 1
        if self._listener is not None:
            self._listener(event)

    async def examine(self) -> Standing:
        """The start-up probe. Raises: TutelageError: it was not passed."""
        facts = await probe(Directly(self.engine), self.engine)
        return Standing(self.engine.provenance, self.engine.capabilities, facts.get("known_answer", ()), facts)

    async def shown(self) -> Standing:
        """What it shows by the known question alone. Raises: TutelageError: no answer, or none that can be right."""
        block = await ask_known(self.engine, self.engine.capabilities)
        answer = () if block is None else known_answer(block)
        return Standing(self.engine.provenance, self.engine.capabilities, answer, {})

    def begin(
        self, tokens: int, question: Callable[[Engine], Awaitable[Result]], expected: Provenance
    ) -> asyncio.Task[Result]:
        """Ask, which counts from now on. tokens: what the question weighs; expected: who must have answered it"""
        self.outstanding_tokens += tokens
        task = asyncio.create_task(self._answer(question, expected))
        self._working[task] = tokens
        task.add_done_callback(self._end)
        return task

    def give_up(self) -> None:
        """Cancel what is under way, so that it can be asked of another one."""
        for task in self._working:
            task.cancel()

    def _end(self, task: asyncio.Task[Any]) -> None:
        self.outstanding_tokens -= self._working.pop(task)

    async def _answer(self, question: Callable[[Engine], Awaitable[Result]], expected: Provenance) -> Result:
        begun_s = perf_counter()
        answer = await question(self.engine)
        self._latencies.add(perf_counter() - begun_s)
        if self.engine.provenance != expected:
            raise BadScores(f"{self.name} answers as another model than at the start", "mismatch")
        return answer

    def view(self) -> ReplicaView:
        return ReplicaView(
            name=self.name,
            up=self.up,
            reason=self.reason,
            outstanding_tokens=self.outstanding_tokens,
            breaker=self.engine.breaker if isinstance(self.engine, LimitedEngine) else None,
            **self._latencies.percentiles()._asdict(),
            **{event: self.counts[event] for event in ("asked", "failed", "quarantined", "hedged", "hedge_won")},
        )
