"""One connection to a server that any number of tasks share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

Command = Sequence[str | bytes | int]
_Asked = tuple[Sequence[Command], asyncio.Future[list[Any]]]


class SharedConnection:
    """Commands that arrive while others are under way leave together after them; replies come back in their order.

    Nothing is sent twice. A caller that is cancelled goes at once, and its commands end by themselves. Where the
    connection breaks, or a reply takes longer than `timeout_s`, all that is under way fails, and what comes next
    connects anew. make: the connection, when it is first needed
    """

    def __init__(self, make: Callable[[], AbstractConnection], timeout_s: float) -> None:
        self._make = make
        self._connection: AbstractConnection | None = None
        self._timeout_s = timeout_s
        self._waiting: list[_Asked] = []
        self._exchanging: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return self._exchanging is not None

    async def ask(self, *commands: Command) -> list[Any]:
        """The replies of commands that leave together.

        Raises:
            ResponseError: the first refusal among them; the others were carried out all the same.
            ConnectionError, TimeoutError, OSError: any of them may have been carried out, or not.
        """
        replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, replies))
        if self._exchanging is None:
            self._exchanging = asyncio.create_task(self._exchange_all())
        return await replies

    async def close(self) -> None:
        """Wait for what is under way, then hang up."""
        if self._exchanging is not None:
            await asyncio.wait([self._exchanging])
        if self._connection is not None:
            await self._connection.disconnect()

    async def _exchange_all(self) -> None:
        try:
            while self._waiting:
                together, self._waiting = self._waiting, []
                await self._exchange(deque(together))
        finally:
            self._exchanging = None

    async def _exchange(self, together: deque[_Asked]) -> None:
        now = asyncio.get_running_loop().time
        connection = self._connection = self._connection or self._make()
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                if connection.is_connected and await connection.can_read():
                    await connection.disconnect(nowait=True)  # it broke while nothing was under way
                every = [command for commands, _ in together for command in commands]
                await connection.send_packed_command(connection.pack_commands(every))
                while together:
                    commands, replies = together[0]
                    found = [await _reply(connection) for _ in commands]
                    limit.reschedule(now() + self._timeout_s)
                    together.popleft()
                    _tell(replies, found)
        except Exception as error:  # noqa: BLE001 - every caller raises it
            await connection.disconnect(nowait=True)
            for _, replies in together:
                if not replies.done():
                    replies.set_exception(error)


def _tell(replies: asyncio.Future[list[Any]], found: list[Any]) -> None:
    """Hand replies to their caller, if it is still there."""
    if replies.done():
        return
    refused = next((each for each in found if isinstance(each, exceptions.ResponseError)), None)
    if refused is None:
        replies.set_result(found)
    else:
        replies.set_exception(refused)


async def _reply(connection: AbstractConnection) -> Any:
    """What the server says, be it a refusal."""
    try:
        return await connection.read_response()
    except exceptions.ResponseError as error:
        return error
