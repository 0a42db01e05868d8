"""One server of the Redis protocol (Redis >= 7.0, Valkey): its connections, its script, its errors.

No command is retried here: a write whose reply was lost may have happened, and the caller's next step is idempotent
anyway. Blocking reads have connections of their own, in slices of at most two seconds, with a socket timeout above
that: a frozen server becomes an error within seconds and never holds up a renewal.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tutelage.queue.base import QueueLimits
from tutelage.queue.script import script
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


class Server:
    """Two small pools of connections to one server, both on RESP 2 so that the shapes of replies are known."""

    def __init__(self, url: str, limits: QueueLimits) -> None:
        address = "redis" + url.removeprefix("valkey").removeprefix("redis")
        self._url = _without_password(url)
        # Commands queue for a few connections; every waiting reader has its own.
        self._client = Redis(connection_pool=BlockingConnectionPool.from_url(address, **_options(REPLY_TIMEOUT_S)))
        self._blocking = Redis(
            connection_pool=ConnectionPool.from_url(address, **_options(MAX_BLOCK_S + REPLY_TIMEOUT_S))
        )
        self._script = self._client.register_script(script())
        self._commands: set[asyncio.Future[Any]] = set()
        self._settings = (_ms(limits.lease_s), limits.max_deliveries, _ms(limits.answer_ttl_s))

    async def op(self, name: str, *arguments: str | bytes | int) -> Any:
        """Run one function of `ops.lua`: atomic, sent once."""
        return await self._whole(self._script(args=[name, *self._settings, *arguments]))

    async def read(
        self, stream: str, after: str, *, count: int, block_s: float
    ) -> list[tuple[str, dict[bytes, bytes]]]:
        """Entries of a stream after an id; waits up to `block_s` (at most two seconds) when there are none."""
        block_s = min(block_s, MAX_BLOCK_S)
        client, block = (self._blocking, _ms(block_s)) if block_s > 0 else (self._client, None)
        reply: Any = await self._whole(client.xread({stream: after}, count=count, block=block))
        return [(entry.decode(), fields) for _, entries in reply or () for entry, fields in entries]

    async def set(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        """All of them in one exchange."""
        pipeline = self._client.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(key, value, px=_ms(ttl_s))
        await self._whole(pipeline.execute())

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._whole(self._client.mget(keys))

    async def _whole(self, command: Awaitable[Any]) -> Any:
        """Await one command; a caller that is cancelled goes at once, and the command ends by itself.

        A cancellation that reaches redis-py while it connects or reads may get lost there, and its caller would wait
        on.
        """
        task = asyncio.ensure_future(command)
        self._commands.add(task)
        task.add_done_callback(self._ended)
        with self._reaching():
            return await asyncio.shield(task)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._commands.discard(task)
        if not task.cancelled():
            task.exception()  # seen here, for a caller that has gone

    async def close(self) -> None:
        if self._commands:
            await asyncio.wait(self._commands)  # each ends within its block and timeout
        for client in (self._client, self._blocking):
            await client.aclose(close_connection_pool=True)

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


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "protocol": 2,
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": REPLY_TIMEOUT_S,
    }


def _ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
