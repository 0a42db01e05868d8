"""The queue inside one process, for tests and simulations: the same semantics as `tutelage.queue.redis`.

Leases and ages follow the clock that is passed in; one that jumps wakes nobody, so advance it first and call then.
Every method changes the state without awaiting in between, so a change is atomic; only then are waiters told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from tutelage.queue.base import Answer, DeadLetter, Delivery, Depth, Job, Put, QueueLimits
from tutelage.queue.records import Line, Record


class MemoryQueue:
    """`Queue` in one process and one event loop."""

    def __init__(self, limits: QueueLimits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or QueueLimits()
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._lines: dict[str, Line] = {}
        self._ended: dict[str, Record] = {}  # answered and dead, the first to expire first
        self._replies: dict[str, list[str]] = {}
        self._receipts = 0
        self._changed = asyncio.Condition()

    async def put(self, jobs: Sequence[Job]) -> list[Put]:
        self._expire()
        entered: dict[str, bool] = {}
        results = [self._add(job, entered) for job in jobs]
        await self._tell()
        return results

    def _add(self, job: Job, entered: dict[str, bool]) -> Put:
        """entered: by queue, whether the last new job of this call did."""
        record = self._records.get(job.id)
        if record is None:
            before = entered.get(job.queue)
            entered[job.queue] = self._line(job.queue).admits(job, self._limits, self._clock(), before)
            if not entered[job.queue]:
                return Put.FULL
            record = Record(job, self._clock(), {job.reply_to: job.run_id})
            self._records[job.id] = record
            self._enqueue(record)
            return Put.ADDED
        if record.state == "answered":
            self._keep(record)
            self._replies.setdefault(job.reply_to, []).append(job.id)
            return Put.ANSWERED
        record.asked[job.reply_to] = job.run_id
        return Put.DEAD if record.state == "dead" else Put.QUEUED

    async def lease(self, queue: str, worker: str, *, count: int, wait_s: float) -> list[Delivery]:
        now = asyncio.get_running_loop().time
        deadline = now() + wait_s
        async with self._changed:
            while True:
                deliveries, buried = self._take(queue, worker, count)
                if buried:
                    self._changed.notify_all()
                left_s = deadline - now()
                if deliveries or left_s <= 0:
                    return deliveries
                leased = self._line(queue).leased.values()
                next_end_s = min((record.until - self._clock() for record in leased), default=left_s)
                await self._wait(min(left_s, next_end_s))

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        lost: list[Delivery] = []
        for delivery in deliveries:
            if record := self._held(delivery):
                record.until = self._clock() + self._limits.lease_s
            else:
                lost.append(delivery)
        return lost

    async def answer(self, answered: Sequence[tuple[Delivery, bytes]]) -> list[bool]:
        results = [self._answer(*each) for each in answered]
        await self._tell()
        return results

    def _answer(self, delivery: Delivery, payload: bytes) -> bool:
        record = self._held(delivery)
        if record is None:
            if late := self._records.get(delivery.job.id):
                self._line(late.job.queue).duplicates += 1
            return False
        self._end(record, "answered", Answer(record.job.id, payload))
        record.job = replace(record.job, payload=b"")
        record.asked = {}
        return True

    async def fail(self, delivery: Delivery, reason: str, *, retry: bool = True) -> bool:
        record = self._held(delivery)
        if record is None:
            return False
        record.tell(reason, self._clock())
        if retry and record.attempts < self._limits.max_deliveries:
            self._enqueue(record)
        else:
            self._end(record, "dead", Answer(record.job.id, None, reason))
        await self._tell()
        return True

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if record := self._held(delivery):
                record.attempts -= 1
                self._enqueue(record)
        await self._tell()

    async def answers(self, reply_to: str, *, after: str, wait_s: float) -> tuple[list[Answer], str]:
        now = asyncio.get_running_loop().time
        deadline = now() + wait_s
        async with self._changed:
            while True:
                announced = self._replies.get(reply_to, [])
                fetched = [await self.fetch(job_id) for job_id in dict.fromkeys(announced[int(after) :])]
                answers = [answer for answer in fetched if answer]
                after = str(len(announced))
                left_s = deadline - now()
                if answers or left_s <= 0:
                    return answers, after
                await self._wait(left_s)

    async def fetch(self, job_id: str) -> Answer | None:
        self._expire()
        return record.answer if (record := self._records.get(job_id)) else None

    async def depth(self, queue: str) -> Depth:
        line = self._line(queue)
        oldest_s = max((self._clock() - record.put_at for record in line.live()), default=None)
        dead = len(await self.dead_letters(queue))
        counted = line.tokens, line.bytes, line.redelivered, line.buried, line.duplicates
        return Depth(len(line.waiting), len(line.leased), dead, oldest_s, *counted)

    async def memory(self) -> None:
        """There is no server."""

    async def dead_letters(self, queue: str) -> list[DeadLetter]:
        self._expire()
        dead = [r for r in self._ended.values() if r.state == "dead" and r.job.queue == queue]
        return [
            DeadLetter(r.job.id, r.job.run_id, r.attempts, r.answer.reason or "", r.history) for r in dead if r.answer
        ]

    async def replay(self, queue: str, job_id: str) -> bool:
        record = self._dead(queue, job_id)
        if record is None:
            return False
        del self._ended[job_id]
        record.attempts, record.answer, record.put_at, record.history = 0, None, self._clock(), ()
        self._enqueue(record)
        await self._tell()
        return True

    async def discard(self, queue: str, job_id: str) -> bool:
        if self._dead(queue, job_id) is None:
            return False
        del self._ended[job_id], self._records[job_id]
        return True

    def _dead(self, queue: str, job_id: str) -> Record | None:
        self._expire()
        record = self._records.get(job_id)
        return record if record and record.state == "dead" and record.job.queue == queue else None

    async def cancel(self, run_id: str) -> int:
        live = [record for line in self._lines.values() for record in line.live()]
        theirs = [record for record in live if run_id in record.asked.values()]
        for record in theirs:
            record.asked = {reply_to: run for reply_to, run in record.asked.items() if run != run_id}
            if not record.asked:
                self._line(record.job.queue).leave(record)
                del self._records[record.job.id]
        return len(theirs)

    async def close(self) -> None:
        """Nothing to close: the queue lives and dies with its process."""

    def _line(self, queue: str) -> Line:
        return self._lines.setdefault(queue, Line())

    def _enqueue(self, record: Record) -> None:
        self._line(record.job.queue).enter(record, "waiting")

    def _held(self, delivery: Delivery) -> Record | None:
        """The record behind a delivery whose lease nobody took over; an expired one still counts until then."""
        record = self._records.get(delivery.job.id)
        return record if record and record.state == "leased" and record.receipt == delivery.receipt else None

    def _take(self, queue: str, worker: str, count: int) -> tuple[list[Delivery], bool]:
        """Lease up to `count` jobs; also says whether a job was given up on the way."""
        line = self._line(queue)
        line.workers[worker] = self._clock()
        lapsed = [record for record in line.leased.values() if record.until <= self._clock()]
        most = min(count, len(lapsed) + line.even_part(self._clock() - self._limits.lease_s))
        deliveries: list[Delivery] = []
        buried = False
        for record in (*lapsed, *line.waiting.values()):
            if len(deliveries) == most:
                break
            if record.state == "leased":
                record.tell("let its lease run out", self._clock())
            if record.attempts >= self._limits.max_deliveries:
                reason = f"worker {record.worker} let its lease run out"
                self._end(record, "dead", Answer(record.job.id, None, reason))
                buried = True
            else:
                deliveries.append(self._lease(record, worker))
        return deliveries, buried

    def _lease(self, record: Record, worker: str) -> Delivery:
        self._receipts += 1
        record.worker, record.receipt = worker, str(self._receipts)
        record.attempts, record.until = record.attempts + 1, self._clock() + self._limits.lease_s
        line = self._line(record.job.queue)
        line.enter(record, "leased")
        line.redelivered += record.attempts > 1
        return Delivery(record.job, worker, record.attempts, record.receipt)

    def _end(self, record: Record, state: Literal["answered", "dead"], answer: Answer) -> None:
        line = self._line(record.job.queue)
        line.leave(record)
        line.buried += state == "dead"
        record.state, record.answer = state, answer
        self._keep(record)
        for reply_to in record.asked:
            self._replies.setdefault(reply_to, []).append(record.job.id)

    def _keep(self, record: Record) -> None:
        record.until = self._clock() + self._limits.answer_ttl_s
        self._ended.pop(record.job.id, None)
        self._ended[record.job.id] = record

    def _expire(self) -> None:
        while self._ended:
            job_id, record = next(iter(self._ended.items()))
            if record.until > self._clock():
                return
            del self._ended[job_id], self._records[job_id]

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
