"""A plain taskiq job on Redis streams: runs in the peers' environment and imports nothing of this project's packages.

Its results are polled for, so the client looks every millisecond, and of many at once for one after the other.

    python benchmarks/queue/taskiq_side.py worker|client REDIS_URL QUESTION_BYTES ANSWER_BYTES
"""

from __future__ import annotations

import asyncio
import sys

from taskiq.api import run_receiver_task  # pyright: ignore[reportMissingImports]
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker  # pyright: ignore[reportMissingImports]

from benchmarks.commands import obey

PART, URL, QUESTION_BYTES, ANSWER_BYTES = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
LOOK_EVERY_S = 0.001
broker = RedisStreamBroker(URL, queue_name="taskiq").with_result_backend(
    RedisAsyncResultBackend(URL, result_ex_time=3600)
)


@broker.task(task_name="null")
async def null(_: str) -> str:
    return "a" * ANSWER_BYTES


async def ask(count: int) -> None:
    question = "q" * QUESTION_BYTES
    tasks = [await null.kiq(question) for _ in range(count)]  # pyright: ignore[reportFunctionMemberAccess]
    for task in tasks:
        result = await task.wait_result(check_interval=LOOK_EVERY_S, timeout=30)
        if len(result.return_value) != ANSWER_BYTES:
            raise ValueError("an answer is not whole")


async def main() -> None:
    if PART == "worker":
        await run_receiver_task(broker, run_startup=True)
    await broker.startup()
    await obey(ask)


if __name__ == "__main__":
    asyncio.run(main())
