"""What a generator makes in a thread of its own, handed to the event loop as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class _Over:
    """Nothing more comes. error: what the thread ended with"""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


async def streamed(make: Callable[[], Iterator[Item]]) -> AsyncGenerator[list[Item]]:
    """The items of `make()`, those of one moment together. Leaving early stops the thread at its next item.

    Raises: whatever the generator raises, after what came before it.
    """
    made: asyncio.Queue[Item | _Over] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    stop = False

    def work() -> None:
        over = _Over()
        try:
            for item in make():
                if stop:
                    return
                loop.call_soon_threadsafe(made.put_nowait, item)
        except BaseException as error:  # noqa: BLE001 - handed to the awaiting side, which raises it
            over = _Over(error)
        loop.call_soon_threadsafe(made.put_nowait, over)

    thread = asyncio.create_task(asyncio.to_thread(work))
    try:
        while True:
            items = [await made.get()]
            while not made.empty():
                items.append(made.get_nowait())
            if ready := [item for item in items if not isinstance(item, _Over)]:
                yield ready
            if isinstance(last := items[-1], _Over):
                if last.error is not None:
                    raise last.error
                return
    finally:
        stop = True
        await thread
