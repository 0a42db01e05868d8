"""Micro-batching: many requests, few engine calls, each call as full as its token budget allows.

An engine that can take one more call takes what is there; while it cannot, requests gather. The request whose turn it
is (see `fairness`; with one owner the oldest) is in the next call, and those that ask for the same signals join it in
order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import reduce
from operator import add
from time import perf_counter
from typing import Any, Self

from tutelage.engines import Engine
from tutelage.engines.base import RewardEngine
from tutelage.engines.upstream.failures import spent_on
from tutelage.teacher.accounts import Bill
from tutelage.teacher.admission import group_tokens
from tutelage.teacher.checks import check_scores
from tutelage.teacher.failures import EngineFailed, told
from tutelage.teacher.parts import cut, share_usage
from tutelage.teacher.queued import Asked, RewardRows, Waiting, WaitingLine
from tutelage.teacher.spans import of_batch, used
from tutelage.telemetry import TeacherMetrics
from tutelage_client.errors import BadScores, TutelageError
from tutelage_client.wire import GenerateRequest, Generation, ScoreGroup, Signal, TokenScores, Usage

Scored = tuple[list[TokenScores], Usage]
Generated = tuple[list[list[Generation]], Usage]
Valued = tuple[list[float], Usage]


class Batcher:
    """The only caller of `engine`. Used as an async context manager; leaving it fails whatever still waits.

    max_batch_tokens: of one engine call; a single longer completion goes alone
    waiting_tokens: of requests that no engine call has taken up yet
    tokens_per_s: of all engine calls together, a moving mean; None before the first
    """

    def __init__(self, engine: Engine, max_batch_tokens: int, metrics: TeacherMetrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._line = WaitingLine(max_batch_tokens, metrics)
        self._arrived = asyncio.Event()
        self._callers: list[asyncio.Task[None]] = []
        self._is_open = False
        self._busy = 0
        self._max_batch_tokens = max_batch_tokens
        self.tokens_per_s: float | None = None

    async def score(
        self,
        groups: Sequence[ScoreGroup],
        signals: frozenset[Signal],
        top_k: int | None,
        bill: Bill | None = None,
        *,
        own_batch: bool = False,
    ) -> Scored:
        """As `Engine.score`, checked. Work that is cancelled while it waits is never done. bill: learns what calls took

        Raises:
            BadScores: the engine's answer must not leave. EngineFailed: it gave none.
        """
        asked = Asked(signals, top_k, own_batch)
        parts = cut(groups, self._max_batch_tokens)
        items = [self._enter(Waiting(part, asked, sum(map(group_tokens, part)), bill)) for part in parts]
        try:
            done: list[Scored] = [await item.future for item in items]
        except TutelageError:
            await _ended(items)
            raise
        finally:
            for item in items:
                item.drop()
        return [block for blocks, _ in done for block in blocks], reduce(add, (usage for _, usage in done))

    async def generate(self, request: GenerateRequest, tokens: int, bill: Bill | None = None) -> Generated:
        """As `Engine.generate`, when its turn comes. tokens: the most that it can write."""
        return await self._alone(Waiting(request, None, tokens, bill))

    async def reward(self, rows: list[list[int]], bill: Bill | None = None) -> Valued:
        """As `RewardEngine.reward`, when its turn comes."""
        return await self._alone(Waiting(RewardRows(rows), None, sum(map(len, rows)), bill))

    async def _alone(self, item: Waiting) -> Any:
        self._enter(item)
        try:
            return await item.future
        finally:
            item.drop()

    @property
    def waiting_tokens(self) -> int:
        return self._line.tokens

    def has_room(self, owner: str, most_tokens: int) -> bool:
        """See `WaitingLine.has_room`."""
        return self._line.has_room(owner, most_tokens)

    def _enter(self, item: Waiting) -> Waiting:
        if not self._is_open:
            raise EngineFailed("the teacher is stopping")
        self._line.enter(item)
        self._arrived.set()
        return item

    async def __aenter__(self) -> Self:
        self._callers = [asyncio.create_task(self._make_calls()) for _ in range(self._engine.calls_at_once)]
        self._is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_open = False
        for caller in self._callers:
            caller.cancel()
        await asyncio.wait(self._callers)
        self._line.fail_all(EngineFailed("the teacher is stopping"))

    async def _make_calls(self) -> None:
        """One engine call after another, for as long as there is work."""
        while True:
            await self._arrived.wait()
            batch = self._line.take()
            if not batch:
                self._arrived.clear()
                continue
            self._busy += 1
            tokens = sum(item.tokens for item in batch)
            self._metrics.in_flight_tokens.inc(tokens)
            try:
                await self._answer(batch)
            finally:
                self._busy -= 1
                self._metrics.in_flight_tokens.dec(tokens)
                for item in batch:  # done all of them, unless this task was cancelled
                    item.fail(EngineFailed("the teacher is stopping"))

    async def _answer(self, batch: list[Waiting]) -> None:
        """One call for all; if it fails, a call each, as one request may have spoilt it."""
        if not await self._attempt(batch, last=len(batch) == 1):
            for item in batch:
                if not item.future.done():
                    await self._attempt([item], last=True)

    async def _attempt(self, batch: list[Waiting], *, last: bool) -> bool:
        """One engine call. False: it failed and, not being the last attempt, nobody was told."""
        began_s = perf_counter()
        try:
            results = await self._call_while_awaited(batch)
        except Exception as error:  # noqa: BLE001 - an engine may raise anything, and the next request must not suffer
            if isinstance(error, BadScores):
                self._metrics.refused_scores.labels(error.flaw).inc()
            if last:
                batch[0].fail(told(error))
            return last
        finally:
            self._metrics.score_seconds.observe(perf_counter() - began_s)
        self._measure(self._busy * sum(item.tokens for item in batch) / max(perf_counter() - began_s, 1e-6))
        for item, result in zip(batch, results, strict=bool(results)):
            if not item.future.done():
                item.future.set_result(result)
        return True

    def _measure(self, tokens_per_s: float) -> None:
        before = self.tokens_per_s
        self.tokens_per_s = tokens_per_s if before is None else 0.8 * before + 0.2 * tokens_per_s

    async def _call_while_awaited(self, batch: list[Waiting]) -> Sequence[Scored | Generated | Valued]:
        """The results; nothing, from an engine that can stop, once nobody waits for any of them."""
        if self._engine.calls_at_once == 1:
            return await self._call(batch)
        call = asyncio.create_task(self._call(batch))

        def stop_if_unwanted(_: object) -> None:
            if all(item.future.done() for item in batch):
                call.cancel()

        for item in batch:
            item.future.add_done_callback(stop_if_unwanted)
        try:
            await asyncio.wait([call])
        except asyncio.CancelledError:
            call.cancel()
            await asyncio.wait([call])
            raise
        return [] if call.cancelled() else call.result()

    async def _call(self, batch: list[Waiting]) -> Sequence[Scored | Generated | Valued]:
        self._metrics.batch_tokens.observe(sum(item.tokens for item in batch))
        for item in batch:
            item.begin_call()
        usage, well = Usage(), False
        with of_batch(batch, self._engine) as told:
            try:
                answer, usage = await self._asked(batch)
                answers = _answers(answer, batch)
                well = True
            except Exception as error:
                usage += spent_on([error])
                raise
            finally:
                shares = _shares(usage, batch)
                for item, share in zip(batch, shares, strict=True):
                    item.end_call(share, well=well)
                self._metrics.spent(usage.model_dump())
                told.tell(used(usage))
        return list(zip(answers, shares, strict=True))

    async def _asked(self, batch: list[Waiting]) -> Scored | Generated | Valued:
        """What the engine says to all of them."""
        first = batch[0]
        if isinstance(first.work, GenerateRequest):
            return await self._engine.generate(first.work)
        if isinstance(first.work, RewardRows):
            assert isinstance(self._engine, RewardEngine)
            return await self._engine.reward(first.work.rows)
        assert first.asked is not None
        groups = [group for part in _parts(batch) for group in part]
        return await self._engine.score(groups, first.asked.signals, first.asked.top_k)


async def _ended(items: Sequence[Waiting]) -> None:
    """Let the engine calls that are under way end, as they cost something in any case, and let no other begin."""
    for item in items:
        if not item.begun:
            item.drop()
    await asyncio.wait([item.future for item in items])


def _parts(batch: list[Waiting]) -> list[list[ScoreGroup]]:
    return [item.work for item in batch if isinstance(item.work, list)]


def _shares(usage: Usage, batch: list[Waiting]) -> list[Usage]:
    """What each of them has to do with it."""
    return [usage] if len(batch) == 1 else share_usage(usage, _parts(batch))


def _answers(answer: list[Any], batch: list[Waiting]) -> list[Any]:
    """What is said to each of them. Raises: BadScores: it must not leave."""
    asked, parts = batch[0].asked, _parts(batch)
    if asked is None:
        return [answer]
    check_scores(answer, [group for part in parts for group in part], asked.signals, asked.top_k)
    return _split(answer, parts)


def _split(blocks: list[TokenScores], parts: Sequence[Sequence[ScoreGroup]]) -> list[list[TokenScores]]:
    remaining = iter(blocks)
    return [[next(remaining) for group in part for _ in group.completions] for part in parts]
