"""Our queue without a teacher: a worker that answers each job with equal bytes, and a client. Bodies are not read.

python -m benchmarks.queue.alone worker|client REDIS_URL QUESTION_BYTES ANSWER_BYTES
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import uuid

from benchmarks.commands import obey
from tutelage.queue import Job, Queue, open_queue

QUEUE = "alone"
A_CALL = 256


async def work(queue: Queue, answer: bytes) -> None:
    while True:
        deliveries = await queue.lease(QUEUE, "worker", count=A_CALL, wait_s=1.0)
        await queue.answer([(delivery, answer) for delivery in deliveries])


class Client:
    def __init__(self, queue: Queue, question: bytes, answer_bytes: int) -> None:
        self._queue = queue
        self._question = question
        self._answer_bytes = answer_bytes
        self._run = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._cursor = "0"

    async def ask(self, count: int) -> None:
        jobs = [self._job(number) for number in itertools.islice(self._numbers, count)]
        putting = asyncio.create_task(self._queue.put(jobs))
        left = count
        while left:
            answers, self._cursor = await self._queue.answers(self._run, after=self._cursor, wait_s=10.0)
            if not answers:
                raise ValueError("no answer came within ten seconds")
            if any(len(answer.payload or b"") != self._answer_bytes for answer in answers):
                raise ValueError("an answer is not whole")
            left -= len(answers)
        await putting

    def _job(self, number: int) -> Job:
        return Job(f"{self._run}-{number}", QUEUE, self._run, self._run, 1, self._question)


async def main(part: str, url: str, question_bytes: int, answer_bytes: int) -> None:
    queue = open_queue(url)
    try:
        if part == "worker":
            await work(queue, b"a" * answer_bytes)
        await obey(Client(queue, b"q" * question_bytes, answer_bytes).ask)
    finally:
        await queue.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
