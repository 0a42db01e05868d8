"""Work that waits for an engine call: what one part of a request is, and which parts share the next call."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import attrgetter
from time import perf_counter
from typing import Any

from tutelage.queue.base import Job
from tutelage.teacher.accounts import Bill
from tutelage.teacher.fairness import FairLine, lets_in
from tutelage.telemetry import TeacherMetrics
from tutelage_client.tracing import CONTEXT, TraceContext
from tutelage_client.wire import GenerateRequest, ScoreGroup, Signal, Usage

JOB: ContextVar[Job | None] = ContextVar("job", default=None)  # that this task answers; None: of the HTTP door


@dataclass(frozen=True, slots=True)
class Asked:
    """What requests must have in common to share an engine call. own_batch: nothing may share it."""

    signals: frozenset[Signal]
    top_k: int | None
    own_batch: bool = False

    def joins(self, other: Asked | None) -> bool:
        return self == other and not self.own_batch


@dataclass(frozen=True, slots=True)
class RewardRows:
    """Texts in token ids, as `RewardEngine.row` made them."""

    rows: list[list[int]]


@dataclass(slots=True, eq=False)
class Waiting:
    """One part of one request. work: groups to score, or what is never merged: a generation, rows of a reward model

    bill: who pays for it; job, context: what it is done for, and in whose trace
    begun: an engine call has taken it up
    """

    work: list[ScoreGroup] | GenerateRequest | RewardRows
    asked: Asked | None
    tokens: int
    bill: Bill | None
    start: float = 0.0
    begun: bool = False
    future: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    arrived_s: float = field(default_factory=perf_counter)
    job: Job | None = field(default_factory=JOB.get)
    context: TraceContext = field(default_factory=CONTEXT.get)

    @property
    def owner(self) -> str:
        return "" if self.bill is None else self.bill.owner

    def begin_call(self) -> None:
        if self.bill is not None:
            self.bill.begin()

    def end_call(self, usage: Usage, *, well: bool) -> None:
        """usage: its share of what the call took"""
        if self.bill is not None:
            self.bill.end(usage, well=well)

    def drop(self) -> None:
        """Nobody waits for this any more; an error that it met is taken note of."""
        if not self.future.cancel() and not self.future.cancelled():
            self.future.exception()

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class WaitingLine:
    """What no engine call has taken up yet, by whose turn it is.

    max_batch_tokens: of one engine call; a single longer completion goes alone
    tokens: that wait, also those that nobody waits for any more until the next call is made up
    """

    def __init__(self, max_batch_tokens: int, metrics: TeacherMetrics) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._metrics = metrics
        self._items: list[Waiting] = []  # by arrival; a call is made up by where they start on the line
        self._line = FairLine()
        self.tokens = 0

    def enter(self, item: Waiting) -> None:
        item.start = self._line.place(item.owner, item.tokens)
        self._items.append(item)
        self._count(self.tokens + item.tokens)

    def has_room(self, owner: str, most_tokens: int) -> bool:
        """Whether one more request of `owner` may wait: see `fairness.lets_in`."""
        if self.tokens < most_tokens:
            return True
        waiting = Counter[str]()
        for item in self._items:
            if not item.future.done():
                waiting[item.owner] += item.tokens
        return lets_in(owner, waiting, most_tokens)

    def take(self) -> list[Waiting]:
        """The request whose turn it is, and those after it that fit into the same call."""
        batch: list[Waiting] = []
        rest: list[Waiting] = []
        room = self._max_batch_tokens
        now_s = perf_counter()
        for item in sorted(self._items, key=attrgetter("start")):
            if item.future.done():
                continue
            joins = not batch or (item.asked is not None and item.asked.joins(batch[0].asked))
            if joins and (not batch or item.tokens <= room):
                batch.append(item)
                self._line.serve(batch[0].start)
                item.begun = True
                room -= item.tokens
                self._metrics.queue_wait_seconds.observe(now_s - item.arrived_s)
            else:
                rest.append(item)
                room = 0 if joins else room  # nobody overtakes who asked for the same and did not fit
        self._items = rest
        if not rest:
            self._line.clear()
        self._count(sum(item.tokens for item in rest))
        return batch

    def fail_all(self, error: Exception) -> None:
        for item in self._items:
            item.fail(error)

    def _count(self, tokens: int) -> None:
        self.tokens = tokens
        self._metrics.waiting_tokens.set(tokens)
