"""The least that streams can do by hand with redis-py: a worker that answers each entry with equal bytes, and a client.

Nothing is kept of what our queue promises: no job is added once, no lease, no checksum, no dead letter. Stored before
acknowledged is. Both sides batch as much as lies there.

    python -m benchmarks.queue.raw worker|client REDIS_URL QUESTION_BYTES ANSWER_BYTES
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import Any

from redis.asyncio import Redis

from benchmarks.commands import obey

JOBS, REPLIES, GROUP = "raw:jobs", "raw:replies", "workers"
A_CALL = 256


async def work(redis: Any, answer: bytes) -> None:
    await redis.xgroup_create(JOBS, GROUP, "0", mkstream=True)
    while True:
        for _, entries in await redis.xreadgroup(GROUP, "worker", {JOBS: ">"}, count=A_CALL, block=1000) or ():
            pipeline = redis.pipeline(transaction=False)
            for entry, fields in entries:
                pipeline.set(b"raw:answer:" + fields[b"job"], answer, ex=3600)
                pipeline.xadd(REPLIES, {"job": fields[b"job"]})
                pipeline.xack(JOBS, GROUP, entry)
                pipeline.xdel(JOBS, entry)
            await pipeline.execute()


class Client:
    def __init__(self, redis: Any, question: bytes, answer_bytes: int) -> None:
        self._redis = redis
        self._question = question
        self._answer_bytes = answer_bytes
        self._numbers = itertools.count()
        self._cursor = "0"

    async def ask(self, count: int) -> None:
        putting = asyncio.create_task(self._put(count))
        left = count
        while left:
            ((_, entries),) = await self._redis.xread({REPLIES: self._cursor}, count=64, block=10_000)
            self._cursor = entries[-1][0]
            answers = await self._redis.mget([b"raw:answer:" + fields[b"job"] for _, fields in entries])
            if any(len(answer) != self._answer_bytes for answer in answers):
                raise ValueError("an answer is not whole")
            left -= len(answers)
        await putting

    async def _put(self, count: int) -> None:
        for first in range(0, count, A_CALL):
            pipeline = self._redis.pipeline(transaction=False)
            for _ in range(first, min(first + A_CALL, count)):
                pipeline.xadd(JOBS, {"job": str(next(self._numbers)), "body": self._question})
            await pipeline.execute()


async def main(part: str, url: str, question_bytes: int, answer_bytes: int) -> None:
    redis = Redis.from_url(url, protocol=2)
    if part == "worker":
        await work(redis, b"a" * answer_bytes)
    await obey(Client(redis, b"q" * question_bytes, answer_bytes).ask)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
