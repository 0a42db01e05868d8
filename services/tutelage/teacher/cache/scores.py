"""The score cache: hits at once, equal questions at the same time asked once, the rest asked and kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tutelage.engines import Engine
from tutelage.teacher.batcher import Scored
from tutelage.teacher.cache.disk import DiskStore
from tutelage.teacher.cache.memory import MemoryStore
from tutelage.teacher.cache.wanted import Wanted, block_of, body_of, groups_of, scope_of, spared, wanted_of
from tutelage.telemetry import TeacherMetrics
from tutelage_client.wire import ScoreCacheView, ScoreGroup, Signal, TokenScores, Usage

Ask = Callable[[Sequence[ScoreGroup]], Awaitable[Scored]]
Landed = tuple[dict[bytes, TokenScores], Usage]


@dataclass(eq=False, slots=True)
class _Flight:
    """Completions that are being asked for. waiters: requests that want one of them; without any it is cancelled"""

    task: asyncio.Task[Landed]
    keys: Collection[bytes]
    waiters: int = 0


@dataclass(slots=True)
class _Sorted:
    """A request's completions by where their answers come from."""

    got: dict[bytes, TokenScores] = field(default_factory=dict)
    joined: dict[_Flight, list[Wanted]] = field(default_factory=dict)
    new: list[Wanted] = field(default_factory=list)
    spared: list[Wanted] = field(default_factory=list)


class ScoreCache:
    """Answers of `engine` by what was asked. disk: keeps them over a restart"""

    def __init__(self, engine: Engine, memory: MemoryStore, disk: DiskStore | None, metrics: TeacherMetrics) -> None:
        self._engine = engine
        self._memory = memory
        self._disk = disk
        self._metrics = metrics
        self._salt = b""
        self._flights: dict[bytes, _Flight] = {}
        self._tasks: set[asyncio.Task[Landed]] = set()
        self._counts: Counter[str] = Counter()

    async def begin(self, known_answer: Sequence[float | None]) -> None:
        """Called when a probe went well. known_answer: what it found; other weights under the same name never hit"""
        if self._disk is not None:
            self._salt = await asyncio.to_thread(self._disk.salt, self._scope(b""), known_answer)

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None, ask: Ask
    ) -> Scored:
        """As `ask` would answer. Whatever is not there is asked of it in one piece.

        A request that waits for another one's flight asks for itself when that flight fails, as the reason may be
        the other's. Raises: what `ask` raises.
        """
        scope = self._scope(self._salt)
        wanted = wanted_of(groups, signals, top_k, scope)
        found = self._sort(wanted)
        usage = spared(found.spared)
        own = self._take_off(found.new, scope, ask) if found.new else None
        with self._aboard([*found.joined, *([own] if own else [])]):
            alone: list[Wanted] = []
            for flight, its in found.joined.items():
                try:
                    blocks, _ = await asyncio.shield(flight.task)
                except Exception:  # noqa: BLE001 - told to whoever began it
                    alone.extend(its)
                else:
                    found.got.update({one.key: blocks[one.key] for one in its})
                    usage += spared(its)
            landed = [await self._fetch(alone, scope, ask)] if alone else []
            landed += [await asyncio.shield(own.task)] if own else []
        for blocks, cost in landed:
            found.got.update(blocks)
            usage += cost
        return [found.got[one.key] for one in wanted], usage

    def view(self) -> ScoreCacheView:
        return ScoreCacheView(
            hits=self._counts["hit"],
            joined=self._counts["joined"],
            misses=self._counts["miss"],
            memory_bytes=self._memory.bytes,
            file_bytes=self._disk.bytes if self._disk else 0,
            corrupt=self._disk.corrupt if self._disk else 0,
        )

    async def close(self) -> None:
        """Give up what is still being asked for, and close the file."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._disk is not None:
            self._disk.close()

    def _scope(self, salt: bytes) -> bytes:
        return scope_of(self._engine.provenance, self._engine.capabilities, salt)

    def _sort(self, wanted: Sequence[Wanted]) -> _Sorted:
        found = _Sorted()
        seen: set[bytes] = set()
        for one in wanted:
            body = self._memory.get(one.key)
            flight = self._flights.get(one.key)
            if body is not None:
                found.got[one.key] = block_of(body)
            if body is not None or one.key in seen:
                self._count("hit", 1)
                found.spared.append(one)
            elif flight is not None:
                self._count("joined", 1)
                found.joined.setdefault(flight, []).append(one)
            else:
                found.new.append(one)
            seen.add(one.key)
        return found

    def _take_off(self, wanted: list[Wanted], scope: bytes, ask: Ask) -> _Flight:
        """Ask in a task of its own: it goes on when who asked first gives up and others wait."""
        task = asyncio.create_task(self._fetch(wanted, scope, ask))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        flight = _Flight(task, {one.key for one in wanted})
        self._flights.update(dict.fromkeys(flight.keys, flight))
        return flight

    def _forget(self, task: asyncio.Task[Landed]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it; with nobody left it is nobody's

    @contextmanager
    def _aboard(self, flights: Sequence[_Flight]) -> Iterator[None]:
        for flight in flights:
            flight.waiters += 1
        try:
            yield
        finally:
            for flight in flights:
                flight.waiters -= 1
                if flight.waiters == 0:
                    flight.task.cancel()
                    for key in flight.keys:
                        del self._flights[key]

    async def _fetch(self, wanted: list[Wanted], scope: bytes, ask: Ask) -> Landed:
        """From the file, else from the engine. What comes is kept before it is given."""
        keys = [one.key for one in wanted]
        bodies = {} if self._disk is None else await asyncio.to_thread(self._disk.get, keys)
        for key, body in bodies.items():
            self._memory.put(key, body)
        there = [one for one in wanted if one.key in bodies]
        missing = [one for one in wanted if one.key not in bodies]
        self._count("hit", len(there))
        self._count("miss", len(missing))
        got = {key: block_of(body) for key, body in bodies.items()}
        usage = spared(there)
        if missing:
            blocks, cost = await ask(groups_of(missing))
            fresh = {one.key: block for one, block in zip(missing, blocks, strict=True)}
            if self._scope(self._salt) == scope:  # else another teacher may have answered than the keys name
                await self._keep(fresh)
            got |= fresh
            usage += cost
        self._metrics.score_cache_bytes.labels("memory").set(self._memory.bytes)
        self._metrics.score_cache_bytes.labels("file").set(self._disk.bytes if self._disk else 0)
        return got, usage

    async def _keep(self, blocks: dict[bytes, TokenScores]) -> None:
        """Whole blocks only: a row that has no score may get one the next time."""
        bodies = {key: body_of(block) for key, block in blocks.items() if block.valid.all()}
        for key, body in bodies.items():
            self._memory.put(key, body)
        if self._disk is not None and bodies:
            await asyncio.to_thread(self._disk.put, bodies)

    def _count(self, outcome: str, completions: int) -> None:
        self._counts[outcome] += completions
        self._metrics.score_cache.labels(outcome).inc(completions)
