"""A TCP proxy with faults, in the event loop of the test: what a network between two processes may do to them.

async with FaultProxy(port) as proxy:
    connect_to(proxy.port)
    await proxy.set(latency_s=0.2)
    await proxy.set()                 # well again
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

CHUNK_BYTES = 65536
_LINGER_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Faults:
    """What goes wrong; several may at once.

    down: nobody listens, open connections are closed; reset: open connections and new ones get a RST
    black_hole: nothing passes in either direction until the fault ends, then what was held passes, as TCP would do it
    drop_replies: requests pass; in place of a reply the connection closes
    latency_s: before every chunk; slice_bytes: chunks are cut to this size; bytes_per_s: of each direction
    limit_bytes, limit_request_bytes: after so many bytes of replies, or of requests, a connection closes
    """

    down: bool = False
    reset: bool = False
    black_hole: bool = False
    drop_replies: bool = False
    latency_s: float = 0.0
    slice_bytes: int | None = None
    bytes_per_s: float | None = None
    limit_bytes: int | None = None
    limit_request_bytes: int | None = None


class FaultProxy:
    """Forwards connections to `target` on this machine. counted: reply chunks dropped, bytes of requests passed on."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._faults = Faults()
        self._passing = asyncio.Event()
        self._passing.set()
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.dropped_replies = 0
        self.request_bytes = 0

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop_listening()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def set(self, *, target: int | None = None, **faults: float | bool | None) -> None:
        """These faults and no others from now on; `target`: forward new connections to another port."""
        self._target = target or self._target
        self._faults = Faults(**faults)  # type: ignore[arg-type]
        (self._passing.clear if self._faults.black_hole else self._passing.set)()
        if self._faults.down:
            await self._stop_listening()
        elif self._listener is None:
            await self._listen()
        if self._faults.down or self._faults.reset:
            for writer in list(self._writers):
                self._cut(writer)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        self._writers.add(to_client)
        try:
            if self._faults.reset:
                self._cut(to_client)
                return
            await self._passing.wait()
            await self._join(from_client, to_client)
        except (asyncio.CancelledError, OSError):
            pass  # the proxy ends, or the target is not there
        finally:
            self._writers.discard(to_client)
            to_client.close()
            with suppress(OSError):
                await to_client.wait_closed()

    async def _join(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        both = [
            asyncio.ensure_future(self._pass(from_client, to_server, is_reply=False)),
            asyncio.ensure_future(self._pass(from_server, to_client, is_reply=True)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            to_server.close()
            with suppress(OSError):
                await to_server.wait_closed()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, is_reply: bool) -> None:
        """One direction, until either end closes."""
        passed = 0
        while data := await source.read(CHUNK_BYTES):
            await self._passing.wait()
            faults = self._faults
            if is_reply and faults.drop_replies:
                self.dropped_replies += 1
                return
            limit = faults.limit_bytes if is_reply else faults.limit_request_bytes
            size = faults.slice_bytes or len(data)
            for start in range(0, len(data), size):
                chunk = data[start : start + size]
                if limit is not None:
                    chunk = chunk[: max(0, limit - passed)]
                pace_s = len(chunk) / faults.bytes_per_s if faults.bytes_per_s else 0.0
                await asyncio.sleep(faults.latency_s + pace_s)
                to.write(chunk)
                await to.drain()
                passed += len(chunk)
                self.request_bytes += 0 if is_reply else len(chunk)
                if limit is not None and passed >= limit:
                    return

    def _cut(self, writer: asyncio.StreamWriter) -> None:
        """Close a client's connection at once, with a RST where that is the fault."""
        if self._faults.reset:
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        writer.transport.abort()
