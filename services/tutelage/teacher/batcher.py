"""Micro-batching: many requests, one engine call at a time, each call as full as its token budget allows.

An engine that is idle takes what is there; while it works, requests gather. The request whose turn it is (see
`fairness`; with one owner the oldest) is in the next call, and those that ask for the same signals join it in order.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Self

from tutelage.engines import Engine
from tutelage.engines.base import RewardEngine
from tutelage.teacher.accounts import Bill
from tutelage.teacher.admission import group_tokens
from tutelage.teacher.checks import check_scores
from tutelage.teacher.failures import EngineFailed, told
from tutelage.teacher.fairness import FairLine
from tutelage.teacher.parts import cut, share_usage
from tutelage.telemetry import TeacherMetrics
from tutelage_client.wire import GenerateRequest, Generation, ScoreGroup, Signal, TokenScores, Usage

Scored = tuple[list[TokenScores], Usage]
Generated = tuple[list[list[Generation]], Usage]
Valued = tuple[list[float], Usage]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What requests must have in common to share an engine call."""

    signals: frozenset[Signal]
    top_k: int | None


@dataclass(frozen=True, slots=True)
class RewardRows:
    """Texts in token ids, as `RewardEngine.row` made them."""

    rows: list[list[int]]


@dataclass(slots=True, eq=False)
class _Waiting:
    """One part of one request. work: groups to score, or what is never merged: a generation, rows of a reward model

    bill: who pays for it
    """

    work: list[ScoreGroup] | GenerateRequest | RewardRows
    asked: _Asked | None
    tokens: int
    bill: Bill | None
    start: float = 0.0
    future: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    arrived_s: float = field(default_factory=perf_counter)

    @property
    def owner(self) -> str:
        return "" if self.bill is None else self.bill.owner


class Batcher:
    """The only caller of `engine`. Used as an async context manager; leaving it fails whatever still waits.

    max_batch_tokens: of one engine call; a single longer completion goes alone
    waiting_tokens: of requests that no engine call has taken up yet
    tokens_per_s: of engine calls, a moving mean; None before the first
    """

    def __init__(self, engine: Engine, max_batch_tokens: int, metrics: TeacherMetrics) -> None:
        self._engine = engine
        self._max_batch_tokens = max_batch_tokens
        self._metrics = metrics
        self._queue: list[_Waiting] = []  # by where they start on the line
        self._line = FairLine()
        self._arrived = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self.waiting_tokens = 0
        self.tokens_per_s: float | None = None

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None, bill: Bill | None = None
    ) -> Scored:
        """As `Engine.score`, checked. Work that is cancelled while it waits is never done. bill: learns when it begins

        Raises:
            BadScores: the engine's answer must not leave. EngineFailed: it gave none.
        """
        asked = _Asked(signals, top_k)
        parts = cut(groups, self._max_batch_tokens)
        items = [self._enter(_Waiting(part, asked, sum(map(group_tokens, part)), bill)) for part in parts]
        try:
            done: list[Scored] = [await item.future for item in items]
        finally:
            for item in items:
                _drop(item)
        return [block for blocks, _ in done for block in blocks], sum((usage for _, usage in done), Usage())

    async def generate(self, request: GenerateRequest, tokens: int, bill: Bill | None = None) -> Generated:
        """As `Engine.generate`, when its turn comes. tokens: the most that it can write."""
        return await self._alone(_Waiting(request, None, tokens, bill))

    async def reward(self, rows: list[list[int]], bill: Bill | None = None) -> Valued:
        """As `RewardEngine.reward`, when its turn comes."""
        return await self._alone(_Waiting(RewardRows(rows), None, sum(map(len, rows)), bill))

    async def _alone(self, item: _Waiting) -> Any:
        self._enter(item)
        try:
            return await item.future
        finally:
            _drop(item)

    def has_room(self, owner: str, most_tokens: int) -> bool:
        """Whether one more request of `owner` may wait. When all room is taken, less than an equal share lets in."""
        if self.waiting_tokens < most_tokens:
            return True
        waiting = [item for item in self._queue if not item.future.done()]
        owners = {item.owner for item in waiting} | {owner}
        return sum(item.tokens for item in waiting if item.owner == owner) < most_tokens / len(owners)

    def _enter(self, item: _Waiting) -> _Waiting:
        if self._loop is None or self._loop.done():
            raise EngineFailed("the teacher is stopping")
        item.start = self._line.place(item.owner, item.tokens)
        insort(self._queue, item, key=lambda each: each.start)
        self._count_waiting(self.waiting_tokens + item.tokens)
        self._arrived.set()
        return item

    async def __aenter__(self) -> Self:
        self._loop = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.cancel()
        await asyncio.wait([self._loop])
        for item in self._queue:
            _fail(item, EngineFailed("the teacher is stopping"))

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            batch = self._take()
            if not batch:
                self._arrived.clear()
                continue
            try:
                await self._answer(batch)
            finally:
                for item in batch:  # done all of them, unless this loop was cancelled
                    _fail(item, EngineFailed("the teacher is stopping"))

    async def _answer(self, batch: list[_Waiting]) -> None:
        """One call for all; if it fails, a call each, as one request may have spoilt it."""
        if not await self._attempt(batch, last=len(batch) == 1):
            for item in batch:
                if not item.future.done():
                    await self._attempt([item], last=True)

    def _take(self) -> list[_Waiting]:
        """The request whose turn it is, and those after it that fit into the same call."""
        batch: list[_Waiting] = []
        rest: list[_Waiting] = []
        room = self._max_batch_tokens
        for item in self._queue:
            if item.future.done():
                continue
            joins = not batch or (item.asked is not None and item.asked == batch[0].asked)
            if joins and (not batch or item.tokens <= room):
                batch.append(item)
                self._line.serve(batch[0].start)
                if item.bill is not None:
                    item.bill.begun = True
                room -= item.tokens
                self._metrics.queue_wait_seconds.observe(perf_counter() - item.arrived_s)
            else:
                rest.append(item)
                room = 0 if joins else room  # nobody overtakes who asked for the same and did not fit
        self._queue = rest
        if not rest:
            self._line.clear()
        self._count_waiting(sum(item.tokens for item in rest))
        return batch

    def _count_waiting(self, tokens: int) -> None:
        self.waiting_tokens = tokens
        self._metrics.waiting_tokens.set(tokens)

    async def _attempt(self, batch: list[_Waiting], *, last: bool) -> bool:
        """One engine call. False: it failed and, not being the last attempt, nobody was told."""
        began_s = perf_counter()
        try:
            results = await self._call(batch)
        except Exception as error:  # noqa: BLE001 - an engine may raise anything, and the next request must not suffer
            if last:
                _fail(batch[0], told(error))
            return last
        finally:
            self._metrics.score_seconds.observe(perf_counter() - began_s)
        self._measure(sum(item.tokens for item in batch) / max(perf_counter() - began_s, 1e-6))
        for item, result in zip(batch, results, strict=True):
            if not item.future.done():
                item.future.set_result(result)
        return True

    def _measure(self, tokens_per_s: float) -> None:
        before = self.tokens_per_s
        self.tokens_per_s = tokens_per_s if before is None else 0.8 * before + 0.2 * tokens_per_s

    async def _call(self, batch: list[_Waiting]) -> Sequence[Scored | Generated | Valued]:
        first = batch[0]
        self._metrics.batch_tokens.observe(sum(item.tokens for item in batch))
        if isinstance(first.work, GenerateRequest):
            generations, usage = await self._engine.generate(first.work)
            self._metrics.spent(usage.model_dump())
            return [(generations, usage)]
        if isinstance(first.work, RewardRows):
            assert isinstance(self._engine, RewardEngine)
            values, usage = await self._engine.reward(first.work.rows)
            self._metrics.spent(usage.model_dump())
            return [(values, usage)]
        assert first.asked is not None
        parts = [item.work for item in batch if isinstance(item.work, list)]
        groups = [group for part in parts for group in part]
        blocks, usage = await self._engine.score(groups, first.asked.signals, first.asked.top_k)
        self._metrics.spent(usage.model_dump())
        check_scores(blocks, groups, first.asked.signals, first.asked.top_k)
        return list(zip(_split(blocks, parts), share_usage(usage, parts), strict=True))


def _split(blocks: list[TokenScores], parts: Sequence[Sequence[ScoreGroup]]) -> list[list[TokenScores]]:
    remaining = iter(blocks)
    return [[next(remaining) for group in part for _ in group.completions] for part in parts]


def _drop(item: _Waiting) -> None:
    """Nobody waits for this any more; an error that it met is taken note of."""
    if not item.future.cancel() and not item.future.cancelled():
        item.future.exception()


def _fail(item: _Waiting, error: Exception) -> None:
    if not item.future.done():
        item.future.set_exception(error)
