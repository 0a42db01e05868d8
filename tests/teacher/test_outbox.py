"""Answers leave together when they are ready together, and each sender hears of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tutelage.teacher.outbox import Outbox


class Line:
    """Takes answers when it is let; every second one has lost its lease."""

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def call(self, answered: Any) -> list[bool]:
        self.calls.append(list(answered))
        await self.open.wait()
        if self.error:
            raise self.error
        return [int(payload) % 2 == 0 for _, payload in answered]


def answer(number: int) -> Any:
    return (f"delivery {number}", str(number).encode())


async def started(outbox: Outbox, numbers: range) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(outbox.send(answer(n))) for n in numbers]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_gathers_during_a_call_leaves_in_the_next() -> None:
    line = Line()
    outbox = Outbox(line.call)
    first = await started(outbox, range(1))
    later = await started(outbox, range(1, 5))
    line.open.set()
    assert await asyncio.gather(*first, *later) == [True, False, True, False, True]
    assert [len(call) for call in line.calls] == [1, 4]


async def test_an_answer_whose_sender_has_gone_is_not_sent() -> None:
    line = Line()
    outbox = Outbox(line.call)
    first = await started(outbox, range(1))
    gone, stays = await started(outbox, range(1, 3))
    gone.cancel()
    line.open.set()
    assert await asyncio.gather(*first, stays) == [True, True]
    assert line.calls == [[answer(0)], [answer(2)]]


async def test_every_sender_of_a_call_that_fails_hears_of_it_and_the_next_call_is_made() -> None:
    line = Line()
    line.open.set()
    line.error = RuntimeError("the script is gone")
    outbox = Outbox(line.call)
    tasks = await started(outbox, range(2))
    for task in tasks:
        with pytest.raises(RuntimeError, match="the script is gone"):
            await task
    line.error = None
    assert await outbox.send(answer(4)) is True


async def test_a_call_that_gave_up_tells_every_sender() -> None:
    async def gave_up(_: Any) -> None:
        return None

    tasks = await started(Outbox(gave_up), range(3))
    assert await asyncio.gather(*tasks) == [None, None, None]
