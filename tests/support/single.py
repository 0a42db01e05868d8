"""The queue's batch operations for one job."""

from __future__ import annotations

from tutelage.queue import Delivery, Job, Put, Queue


async def put_one(queue: Queue, job: Job) -> Put:
    [result] = await queue.put([job])
    return result


async def answer_one(queue: Queue, delivery: Delivery, payload: bytes) -> bool:
    [kept] = await queue.answer([(delivery, payload)])
    return kept
