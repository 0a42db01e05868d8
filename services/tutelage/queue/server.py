"""One server of the Redis protocol (Redis >= 7.0, Valkey): its connections, its functions, its errors.

No command is repeated here: a write whose reply was lost may have happened, and the caller's next step is idempotent
anyway. Blocking reads, in slices of at most two seconds, and bodies, which may be long, have connections of their own:
neither holds up a renewal, and a frozen server becomes an error within seconds.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tutelage.queue.base import TURN_S, QueueLimits
from tutelage.queue.connection import Command, SharedConnection
from tutelage.queue.functions import library
from tutelage_client.errors import ServiceUnreachable

MAX_BLOCK_S = 2.0
REPLY_TIMEOUT_S = 5.0
# A full memory and a replica during a failover are refusals that pass, like a lost connection.
_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    OSError,
)
_CONNECTING: dict[str, Any] = {
    "protocol": 2,  # so that the shapes of replies are known
    "decode_responses": False,
    "socket_timeout": None,  # the limits are ours
    "socket_connect_timeout": REPLY_TIMEOUT_S,
    "retry": Retry(NoBackoff(), 0),
}


class Server:
    """The connections to one server. Nothing is connected before it is needed."""

    def __init__(self, url: str, limits: QueueLimits, password: str | None = None) -> None:
        address = "redis" + url.removeprefix("valkey").removeprefix("redis")
        self._url = _without_password(url)
        self._pool = ConnectionPool.from_url(address, **_CONNECTING, password=password)
        self._library = library()
        times = _ms(limits.lease_s), limits.max_deliveries, _ms(limits.answer_ttl_s)
        self._settings = (*times, limits.max_tokens, limits.max_bytes, _ms(TURN_S))
        self._states, self._bodies = self._shared(REPLY_TIMEOUT_S), self._shared(REPLY_TIMEOUT_S)
        self._readers: list[SharedConnection] = []

    async def op(self, name: str, *arguments: str | bytes | int) -> Any:
        """Run one function of `ops.lua`: atomic, sent once."""
        called = self._called(name, *arguments)
        with self._reaching():
            try:
                (reply,) = await self._states.ask(called)
            except exceptions.ResponseError as error:
                if not _is_unknown(error):
                    raise
                _, reply = await self._states.ask(("FUNCTION", "LOAD", "REPLACE", self._library.text), called)
        return reply

    async def op_once(self, stream: str, after: str, block_s: float, name: str, *arguments: str | bytes | int) -> Any:
        """`op`, run by the server once the stream has an entry after that id, or `block_s` (at most two seconds) later.

        A caller that is cancelled takes the call with it.
        """
        wait = ("XREAD", "COUNT", 1, "BLOCK", _ms(min(block_s, MAX_BLOCK_S)), "STREAMS", stream, after)
        shared = self._reader()
        with self._reaching():
            try:
                _, reply = await shared.ask(wait, self._called(name, *arguments))
            except exceptions.ResponseError as error:
                if not _is_unknown(error):
                    raise
                return await self.op(name, *arguments)
            except asyncio.CancelledError:
                shared.hang_up()
                raise
        return reply

    async def set(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        """All of them in one exchange."""
        commands: list[Command] = [("SET", key, value, "PX", _ms(ttl_s)) for key, value in values.items()]
        with self._reaching():
            await self._bodies.ask(*commands)

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        with self._reaching():
            (found,) = await self._bodies.ask(("MGET", *keys))
        return found

    async def memory(self) -> dict[str, int] | None:
        """`used_memory` and `maxmemory` of INFO, in bytes; None where the user may not ask."""
        with self._reaching():
            try:
                (told,) = await self._states.ask(("INFO", "memory"))
            except exceptions.NoPermissionError:
                return None
        lines = dict(line.split(":", 1) for line in told.decode().splitlines() if ":" in line)
        return {name: int(lines[name]) for name in ("used_memory", "maxmemory")}

    async def close(self) -> None:
        for shared in (self._states, self._bodies, *self._readers):
            await shared.close()

    def _called(self, name: str, *arguments: str | bytes | int) -> Command:
        return ("FCALL", f"{self._library.name}_{name}", 0, *self._settings, *arguments)

    def _shared(self, timeout_s: float) -> SharedConnection:
        return SharedConnection(self._pool.make_connection, timeout_s)

    def _reader(self) -> SharedConnection:
        """A connection on which nobody waits."""
        free = next((reader for reader in self._readers if not reader.busy), None)
        if free is None:
            free = self._shared(MAX_BLOCK_S + REPLY_TIMEOUT_S)
            self._readers.append(free)
        return free

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except _PASSING as error:
            raise ServiceUnreachable(self._url, str(error) or type(error).__name__) from error
        except exceptions.ResponseError as error:
            if "MISCONF" not in str(error):  # writes are off because the disk is full
                raise
            raise ServiceUnreachable(self._url, str(error)) from error


def _is_unknown(error: exceptions.ResponseError) -> bool:
    """The server does not have the library: it has just been started, or was wiped."""
    return str(error) == "Function not found"


def _ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
