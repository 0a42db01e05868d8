"""One connection to a server that any number of tasks share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis import exceptions
from redis.asyncio.connection import AbstractConnection, DefaultParser

Command = Sequence[str | bytes | int]
_Replies = asyncio.Future[list[Any]]


class SharedConnection:
    """Commands leave as they come; replies come back in their order.

    Nothing is sent twice. A caller that is cancelled goes at once, and its commands end by themselves. Where the
    connection breaks, or nothing is heard for `timeout_s` while a reply is due, all that is under way fails, and what
    comes next connects anew. make: the connection, when it is first needed
    """

    def __init__(self, make: Callable[[], AbstractConnection], timeout_s: float) -> None:
        self._make = make
        self._timeout_s = timeout_s
        self._line: _Line | None = None
        self._unsent: list[tuple[Sequence[Command], _Replies]] = []
        self._connecting: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return self._connecting is not None or bool(self._line and self._line.due)

    async def ask(self, *commands: Command) -> list[Any]:
        """The replies of commands that leave together.

        Raises:
            ResponseError: the first refusal among them; the others were carried out all the same.
            ConnectionError, TimeoutError, OSError: any of them may have been carried out, or not.
        """
        replies: _Replies = asyncio.get_running_loop().create_future()
        if self._line is not None and not self._line.is_over:
            self._line.send(commands, replies)
        else:
            self._unsent.append((commands, replies))
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
        return await replies

    async def close(self) -> None:
        """Wait for what is under way, then hang up."""
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        if self._line is not None:
            if self._line.due:
                await asyncio.wait([replies for _, replies in self._line.due])
            self.hang_up()
            await self._line.lost

    def hang_up(self) -> None:
        """What is under way fails, and of what the server has not begun it carries out nothing."""
        if self._line is not None:
            self._line.end(exceptions.ConnectionError("hung up"))

    async def _connect(self) -> None:
        """By the library, which knows about names, passwords and certificates; then the bytes are ours."""
        connection = self._make()
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.connect()
            self._line = _Line(connection, self._timeout_s)
            for commands, replies in self._unsent:
                self._line.send(commands, replies)
        except Exception as error:  # noqa: BLE001 - every caller raises it
            await connection.disconnect(nowait=True)
            for _, replies in self._unsent:
                _fail(replies, error)
        finally:
            self._unsent = []
            self._connecting = None


class _Line(asyncio.Protocol):
    """A connection from its greeting to its end.

    due: how many replies are to come, and for whom, in order; is_over: nothing more may be sent
    """

    def __init__(self, connection: AbstractConnection, timeout_s: float) -> None:
        self._clock = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._parser = hiredis.Reader(replyError=DefaultParser.parse_error)
        self._found: list[Any] = []
        self._heard_s = 0.0
        self._look: asyncio.TimerHandle | None = None
        self.is_over = False
        self.due: deque[tuple[int, _Replies]] = deque()
        self.lost: asyncio.Future[None] = self._clock.create_future()
        self._writer = _taken_from(connection)  # held, as it hangs up once nobody holds it
        self._transport = cast("asyncio.Transport", self._writer.transport)
        self._transport.set_protocol(self)

    def send(self, commands: Sequence[Command], replies: _Replies) -> None:
        if not self.due:
            self._heard_s = self._clock.time()
        self.due.append((len(commands), replies))
        self._transport.write(b"".join(map(_packed, commands)))
        if self._look is None:
            self._look = self._clock.call_later(self._timeout_s, self._check)

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._clock.time()
        self._parser.feed(data)
        while (reply := self._parser.gets()) is not False:  # there is none yet
            self._found.append(reply)
            if len(self._found) == self.due[0][0]:
                _tell(self.due.popleft()[1], self._found)
                self._found = []

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(exc or exceptions.ConnectionError("the server closed the connection"))
        self.lost.set_result(None)

    def end(self, error: Exception) -> None:
        """Fail what is under way and hang up."""
        self.is_over = True
        if self._look is not None:
            self._look.cancel()
        while self.due:
            _fail(self.due.popleft()[1], error)
        self._transport.abort()

    def _check(self) -> None:
        """One timer for all: a reply may take as long as others come."""
        self._look = None
        if not self.due:
            return
        left_s = self._heard_s + self._timeout_s - self._clock.time()
        if left_s > 0:
            self._look = self._clock.call_later(left_s, self._check)
        else:
            self.end(exceptions.TimeoutError(f"the server said nothing for {self._timeout_s:g} s"))


def _taken_from(connection: AbstractConnection) -> asyncio.StreamWriter:
    """The way to the server; the library forgets it, and has no part in its end."""
    writer = connection._writer  # it offers no other way to bytes of one's own
    assert writer is not None
    connection._reader = connection._writer = None
    return writer


def _packed(command: Command) -> bytes:
    return hiredis.pack_command(tuple(command))  # type: ignore[arg-type] # its stub knows one part


def _tell(replies: _Replies, found: list[Any]) -> None:
    """Hand replies to their caller, if it is still there."""
    refused = next((each for each in found if isinstance(each, exceptions.ResponseError)), None)
    if refused is not None:
        _fail(replies, refused)
    elif not replies.done():
        replies.set_result(found)


def _fail(replies: _Replies, error: Exception) -> None:
    if not replies.done():
        replies.set_exception(error)
