"""Answers on their way to the queue: those that are ready while a call is under way leave together in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tutelage.queue.base import Delivery

Answered = tuple[Delivery, bytes]


class Outbox:
    """`send` may be called by any number of tasks; `call` is never under way twice.

    call: hands answers over and says of each whether its lease was still held; None of all of them: it gave up
    """

    def __init__(self, call: Callable[[Sequence[Answered]], Awaitable[list[bool] | None]]) -> None:
        self._call = call
        self._waiting: list[tuple[Answered, asyncio.Future[bool | None]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def send(self, answered: Answered) -> bool | None:
        """What `call` says of this answer. A sender that is cancelled before its call began takes its answer back."""
        future: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((answered, future))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        return await future

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch = [(answered, future) for answered, future in self._waiting if not future.done()]
                self._waiting = []
                await self._send(batch)
        finally:
            self._sending = None

    async def _send(self, batch: list[tuple[Answered, asyncio.Future[bool | None]]]) -> None:
        try:
            kept = await self._call([answered for answered, _ in batch]) if batch else []
        except Exception as error:  # noqa: BLE001 - each sender raises it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), each in zip(batch, kept or [None] * len(batch), strict=True):
            if not future.done():
                future.set_result(each)
