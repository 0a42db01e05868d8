"""Clients of one run's event stream, some of which read and some never do, and the server's memory meanwhile."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.coordinator.filling import SPEC
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import EventReport
from tutelage_client.worker import WorkerClient

PAYLOAD = "x" * 1000  # of an event, so that those who do not read would soon hold much
DEAF_BUFFER_BYTES = 4096  # the least that a kernel keeps for them
WITHIN_S = 300.0


@dataclass(frozen=True)
class Followed:
    """took_s: from the first event to the last reader's last; received_bytes: of all readers.

    is_whole: every reader saw every event once, in order
    rss: of the server, with every client connected: before the events, when each reader had half of them, at the end
    """

    readers: int
    deaf: int
    events: int
    took_s: float
    received_bytes: int
    is_whole: bool
    rss_before_bytes: int
    rss_half_bytes: int
    rss_after_bytes: int


@dataclass
class Heard:
    """A reader, and the numbers of the events that it saw."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ids: list[int]
    bytes: int = 0


async def followed(url: str, pid: int, clients: int, events: int) -> Followed:
    """Those who never read hold what they can within the first half, so what the second half adds is not theirs."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 0
    deaf = clients // 2
    async with CoordinatorClient(url) as coordinator, WorkerClient(url) as worker:
        run = await coordinator.submit(SPEC)
        lease = await worker.lease_run(run.id, "bench")
        begun = (await coordinator.event_page(run.id)).data[-1].id
        closed = [_deaf(host, port, run.id) for _ in range(deaf)]
        readers = [await _listening(host, port, run.id) for _ in range(clients - deaf)]
        await _read_all(readers, begun)
        report = EventReport(epoch=lease.epoch, type="log", message="bench", data={"payload": PAYLOAD})
        rss, started = [rss_bytes(pid)], time.monotonic()
        for done, upto in pairwise((0, events // 2, events)):
            reading = asyncio.create_task(_read_all(readers, begun + upto))
            for _ in range(upto - done):
                await worker.report_event(run.id, report)
            await asyncio.wait_for(reading, WITHIN_S)
            rss.append(rss_bytes(pid))
        took_s = time.monotonic() - started
        for each in closed:
            each.close()
        for each in readers:
            each.writer.close()
        await coordinator.cancel(run.id)
    whole = all(each.ids == list(range(1, begun + events + 1)) for each in readers)
    received = sum(each.bytes for each in readers)
    return Followed(len(readers), deaf, events, took_s, received, whole, *rss)


def _deaf(host: str, port: int, run_id: str) -> socket.socket:
    """Asks for the stream and reads nothing of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF_BUFFER_BYTES)
    client.connect((host, port))
    client.sendall(_asked(host, run_id))
    return client


async def _listening(host: str, port: int, run_id: str) -> Heard:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(_asked(host, run_id))
    return Heard(reader, writer, [])


async def _read_all(readers: Sequence[Heard], last: int) -> None:
    """Until each has seen the event `last`, or its stream has ended."""
    await asyncio.gather(*(_read(each, last) for each in readers))


async def _read(heard: Heard, last: int) -> None:
    while not heard.ids or heard.ids[-1] < last:
        line = await heard.reader.readline()
        if not line:
            return
        heard.bytes += len(line)
        if found := re.match(rb"id: (\d+)", line):
            heard.ids.append(int(found[1]))


def _asked(host: str, run_id: str) -> bytes:
    return f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n".encode()


def rss_bytes(pid: int) -> int:
    """What the process has in memory now."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])
