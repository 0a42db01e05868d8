"""The queue door: it leases jobs, has them scored or rewarded, and stores each answer before its job is acknowledged.

Several jobs are in hand at a time, so that the batcher can merge them. Whatever happens to this process, a job that it
held comes back when its lease runs out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

from tutelage.about import tell_about
from tutelage.queue.base import Delivery, Job, Queue
from tutelage.teacher.accounts import BudgetSpent
from tutelage.teacher.callers import Callers
from tutelage.teacher.failures import EngineAway, EngineFailed
from tutelage.teacher.negotiation import read_request
from tutelage.teacher.outbox import Outbox
from tutelage.teacher.queued import JOB
from tutelage.teacher.scorer import Scorer
from tutelage.telemetry import describe_error
from tutelage.waiting import is_set_within, until_reached
from tutelage_client.errors import BadScores, InvalidInput, ServiceUnreachable
from tutelage_client.tracing import CONTEXT, received
from tutelage_client.wire import (
    MEDIA_TYPE,
    decode_reward_request,
    encode_reply,
    encode_reward_reply,
    is_reward_request,
)

log = logging.getLogger(__name__)

Result = TypeVar("Result")
_MOST_JOBS_A_LEASE = 256
_LOOK_UP_S = 1.0  # the longest wait for the queue or for room before it looks whether to stop


class QueueWorker:
    """Works on the queue that is named like its teacher until `stopping` is set.

    lease_s: of the queue; renewed three times in it. max_tokens: of the jobs in hand
    grace_s: for the jobs in hand when it stops; what is not done by then is handed back
    """

    def __init__(
        self,
        queue: Queue,
        scorer: Scorer,
        callers: Callers,
        worker: str,
        *,
        lease_s: float,
        max_tokens: int,
        grace_s: float,
        stopping: asyncio.Event,
    ) -> None:
        self._queue = queue
        self._scorer = scorer
        self._callers = callers
        self._worker = worker
        self._lease_s = lease_s
        self._max_tokens = max_tokens
        self._grace_s = grace_s
        self._stopping = stopping
        self._outbox = Outbox(lambda answered: self._insist(lambda: queue.answer(answered)))
        self._held: dict[asyncio.Task[None], Delivery] = {}
        self._held_tokens = 0
        self._job_ended = asyncio.Event()
        self._suspect: asyncio.Task[None] | None = None
        self._wary = False
        self._typical_tokens = max_tokens

    async def run(self) -> None:
        """Lease and work while the teacher is ready, until told to stop; then finish or hand back what is in hand."""
        async with asyncio.TaskGroup() as beside:
            renewing = beside.create_task(self._renew())
            try:
                while not self._stopping.is_set():
                    await self._lease()
                if self._held:
                    await asyncio.wait(self._held, timeout=self._grace_s)
            finally:
                renewing.cancel()
                await self._hand_back()

    async def _lease(self) -> None:
        """Take jobs while the teacher is ready and there is room for their tokens, else wait until that is so."""
        await self._scorer.become_ready(self._stopping)
        room = self._max_tokens - self._held_tokens
        if room <= 0 or self._suspect is not None:
            self._job_ended.clear()
            await is_set_within(self._job_ended, _LOOK_UP_S)
            return
        count = 1 if self._wary else min(max(1, room // self._typical_tokens), _MOST_JOBS_A_LEASE)
        deliveries = await self._insist(
            lambda: self._queue.lease(self._scorer.name, self._worker, count=count, wait_s=_LOOK_UP_S)
        )
        if not deliveries:
            return
        self._typical_tokens = max(1, sum(d.job.tokens for d in deliveries) // len(deliveries))
        suspect = next((delivery for delivery in deliveries if delivery.attempt > 1), None)
        self._wary = suspect is not None
        if suspect is None:
            for delivery in deliveries:
                self._hold(delivery, self._work(delivery))
            return
        await self._insist(lambda: self._queue.release([d for d in deliveries if d is not suspect]))
        self._suspect = self._hold(suspect, self._work_alone(suspect, list(self._held)))

    def _hold(self, delivery: Delivery, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._held[task] = delivery
        self._held_tokens += delivery.job.tokens
        task.add_done_callback(self._end)
        return task

    async def _work_alone(self, suspect: Delivery, others: list[asyncio.Task[None]]) -> None:
        """A job that somebody failed at or died with: if it kills this process, no other job is in hand."""
        if others:
            await asyncio.wait(others)
        await self._work(suspect)

    def _end(self, task: asyncio.Task[None]) -> None:
        delivery = self._held.pop(task)
        self._held_tokens -= delivery.job.tokens
        if task is self._suspect:
            self._suspect = None
        self._job_ended.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a job broke the worker", extra={"request_id": delivery.job.id, **describe_error(error)})

    async def _work(self, delivery: Delivery) -> None:
        JOB.set(delivery.job)  # of this task
        tell_about(run_id=delivery.job.run_id, request_id=delivery.job.id)
        CONTEXT.set(received(delivery.job.traceparent, delivery.job.tracestate))
        log.debug("a job is worked on", extra={"attempt": delivery.attempt})
        try:
            payload = await self._answered(delivery.job)
        except (InvalidInput, BudgetSpent) as error:
            reason = str(error)
            kept = await self._insist(lambda: self._queue.fail(delivery, reason, retry=False))
        except EngineAway as error:
            log.warning("a job is handed back", extra={"reason": str(error)})
            await self._insist(lambda: self._queue.release([delivery]))
            return
        except (BadScores, EngineFailed) as error:
            reason = str(error)
            log.warning("a job failed", extra={"attempt": delivery.attempt, "reason": reason})
            kept = await self._insist(lambda: self._queue.fail(delivery, reason, retry=True))
        else:
            kept = await self._outbox.send((delivery, payload))
        if not kept:
            log.warning("a job's lease was lost before its end")

    async def _answered(self, job: Job) -> bytes:
        """The payload's answer: it says itself whether it asks for scores or for rewards."""
        caller = self._callers.for_run(job.run_id)
        if is_reward_request(job.payload):
            return encode_reward_reply(await self._scorer.reward(decode_reward_request(job.payload), caller))
        request = read_request(job.payload, MEDIA_TYPE)
        return encode_reply(await self._scorer.score(request, caller), request.entry_dtype)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            held = list(self._held.values())
            try:
                lost = await self._queue.renew(held) if held else []
            except ServiceUnreachable as error:
                log.warning("leases could not be renewed", extra=describe_error(error))
                continue
            receipts = {delivery.receipt for delivery in lost}
            for task, delivery in self._held.items():
                if delivery.receipt in receipts:
                    task.cancel()

    async def _insist(self, call: Callable[[], Awaitable[Result]]) -> Result | None:
        return await until_reached(call, self._stopping)

    async def _hand_back(self) -> None:
        unfinished = dict(self._held)
        for task in unfinished:
            task.cancel()
        if not unfinished:
            return
        await asyncio.wait(unfinished)
        try:
            await self._queue.release(list(unfinished.values()))
        except ServiceUnreachable as error:
            log.warning("jobs could not be handed back; their leases run out", extra=describe_error(error))
