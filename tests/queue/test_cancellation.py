"""A caller that is cancelled while the server is being asked goes at once, whatever the connection is doing."""

from __future__ import annotations

import asyncio
import random

from tutelage.queue.base import Queue


async def test_a_cancelled_reader_always_ends(queue: Queue) -> None:
    draw = random.Random(5)

    async def read_on() -> None:
        while True:
            await queue.answers("nobody", after="0", wait_s=0.2)

    for _ in range(100):
        reader = asyncio.create_task(read_on())
        await asyncio.sleep(draw.random() * 0.01)  # somewhere between connecting, sending and waiting
        reader.cancel()
        ended, _ = await asyncio.wait([reader], timeout=5)
        assert ended, "the reader outlived its cancellation"
