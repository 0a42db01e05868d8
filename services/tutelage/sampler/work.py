"""Work on the queue: texts are leased, written, and answered as they end.

A job names the snapshot that its text is to be of, whose weights are loaded before anything is written. Whatever
happens to this process, a text that it had in hand comes back to the queue when its lease runs out.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from pydantic import ValidationError

from tutelage.about import about
from tutelage.engines.snapshots import Current, SnapshotGone
from tutelage.engines.upstream.failures import UpstreamAway
from tutelage.queue.base import Delivery, Queue
from tutelage.sampler.settings import Settings
from tutelage.telemetry import describe_error
from tutelage.tracing import Attributes, span
from tutelage.waiting import is_set_within, until_reached
from tutelage_client.errors import ServiceUnreachable
from tutelage_client.tracing import CONTEXT, TraceContext, received
from tutelage_client.wire import SampleReply, SampleRequest, SnapshotRef, sampler_queue

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Part = list[tuple[Delivery, SampleRequest]]
LOOK_UP_S = 1.0  # the longest wait for the queue before it looks whether to stop
LONGEST_PAUSE_S = 30.0


class Work:
    """Takes texts of `settings.name` until `stopping` is set; then what is in hand is finished or handed back."""

    def __init__(
        self, queue: Queue, student: Current, settings: Settings, worker: str, stopping: asyncio.Event
    ) -> None:
        self._queue = queue
        self._student = student
        self._settings = settings
        self._worker = worker
        self._stopping = stopping
        self._held: dict[str, Delivery] = {}
        self._failures = 0  # in a row; who fails takes less and less, so that others get the work

    async def run(self) -> None:
        """Raises: what broke the work itself; texts that cannot be written do not."""
        renewing = asyncio.create_task(self._renew())
        working = asyncio.create_task(self._work())
        told = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({working}, timeout=self._settings.grace_s)
            if working.done():
                return working.result()
            await self._hand_back()
        finally:
            for task in (renewing, working, told):
                task.cancel()
            await asyncio.gather(renewing, working, told, return_exceptions=True)

    async def _work(self) -> None:
        queue, most = sampler_queue(self._settings.name), self._settings.max_texts
        while not self._stopping.is_set():
            if self._failures:
                pause_s = random.uniform(0.5, 1) * min(LONGEST_PAUSE_S, 2.0 ** (self._failures - 1))
                await is_set_within(self._stopping, pause_s)
            leased = await self._insist(lambda: self._queue.lease(queue, self._worker, count=most, wait_s=LOOK_UP_S))
            self._held = {delivery.job.id: delivery for delivery in leased or ()}
            for ref, part in (await self._by_snapshot(leased or ())).items():
                await self._write(ref, part)

    async def _by_snapshot(self, leased: Sequence[Delivery]) -> dict[SnapshotRef, Part]:
        parts: dict[SnapshotRef, Part] = {}
        for delivery in leased:
            try:
                request = SampleRequest.model_validate_json(delivery.job.payload)
            except ValidationError as error:
                await self._fail([delivery], f"the job cannot be read: {error.error_count()} errors in it", retry=False)
                continue
            parts.setdefault(request.snapshot, []).append((delivery, request))
        return parts

    async def _write(self, ref: SnapshotRef, part: Part) -> None:
        part = [(delivery, request) for delivery, request in part if delivery.job.id in self._held]
        if not part:
            return
        CONTEXT.set(_asked(part)[0])
        job = part[0][0].job  # a snapshot is of one run
        with (
            about(run_id=job.run_id, policy_version=ref.policy_version),
            span(f"process {job.queue}", _told(part), "consumer", links=_asked(part)),
        ):
            await self._written(ref, part)

    async def _written(self, ref: SnapshotRef, part: Part) -> None:
        deliveries = [delivery for delivery, _ in part]
        try:
            await self._student.load(ref)
            async with aclosing(self._student.write([request for _, request in part])) as written:
                async for ended in written:
                    await self._answer([(deliveries[i], SampleReply(text=text)) for i, text in ended])
        except SnapshotGone as error:
            log.info("texts are wanted no more", extra={"texts": len(part), "reason": str(error)})
            await self._answer([(delivery, SampleReply(text=None)) for delivery in deliveries])
        except UpstreamAway as error:
            self._failures += 1
            log.warning("texts are handed back", extra={"texts": len(part), **describe_error(error)})
            await self._hand_back()
        except Exception as error:  # noqa: BLE001 - another sampler may write them, and the trainer should hear why not
            self._failures += 1
            log.error("texts cannot be written", extra={"texts": len(part), **describe_error(error)})  # noqa: TRY400
            reason = str(error).partition("\n")[0][:300] or type(error).__name__
            await self._fail(deliveries, reason, retry=True)
        else:
            self._failures = 0
            log.info("texts are written", extra={"texts": len(part)})

    async def _answer(self, replies: Sequence[tuple[Delivery, SampleReply]]) -> None:
        answered = [
            (delivery, reply.model_dump_json().encode())
            for delivery, reply in replies
            if self._held.pop(delivery.job.id, None) is not None
        ]
        if answered:
            await self._insist(lambda: self._queue.answer(answered))

    async def _fail(self, deliveries: Sequence[Delivery], reason: str, *, retry: bool) -> None:
        for delivery in deliveries:
            if self._held.pop(delivery.job.id, None) is not None:
                await self._insist(lambda delivery=delivery: self._queue.fail(delivery, reason, retry=retry))

    async def _hand_back(self) -> None:
        held, self._held = list(self._held.values()), {}
        if held:
            await self._insist(lambda: self._queue.release(held))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            try:
                lost = await self._queue.renew(list(self._held.values())) if self._held else []
            except ServiceUnreachable as error:
                log.warning("leases could not be renewed", extra=describe_error(error))
                continue
            for delivery in lost:
                self._held.pop(delivery.job.id, None)

    async def _insist(self, call: Callable[[], Awaitable[Result]]) -> Result | None:
        return await until_reached(call, self._stopping)


def _asked(part: Part) -> list[TraceContext]:
    """What the texts are written for."""
    return [received(delivery.job.traceparent, delivery.job.tracestate) for delivery, _ in part]


def _told(part: Part) -> Attributes:
    return {
        "messaging.system": "redis",
        "messaging.destination.name": part[0][0].job.queue,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.batch.message_count": len(part),
        "gen_ai.operation.name": "text_completion",
    }
