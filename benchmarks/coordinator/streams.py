"""Clients of one run's event stream, some of which read and some never do, and the server's memory meanwhile."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from dataclasses import dataclass
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

    is_whole: every reader saw every event once, in order; rss: of the server, with every client connected
    """

    readers: int
    deaf: int
    events: int
    took_s: float
    received_bytes: int
    is_whole: bool
    rss_before_bytes: int
    rss_after_bytes: int


@dataclass
class Heard:
    """The numbers of the events that a reader saw."""

    ids: list[int]
    bytes: int


async def followed(url: str, pid: int, clients: int, events: int) -> Followed:
    """The first tenth of the events warms everybody up and is before `rss_before`."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 0
    deaf = clients // 2
    async with CoordinatorClient(url) as coordinator, WorkerClient(url) as worker, asyncio.TaskGroup() as group:
        run = await coordinator.submit(SPEC)
        lease = await worker.lease_run(run.id, "bench")
        begun = (await coordinator.event_page(run.id)).data[-1].id
        closed = [_deaf(host, port, run.id) for _ in range(deaf)]
        last = begun + events
        reading = [group.create_task(_read(host, port, run.id, last)) for _ in range(clients - deaf)]
        report = EventReport(epoch=lease.epoch, type="log", message="bench", data={"payload": PAYLOAD})
        for _ in range(events // 10):
            await worker.report_event(run.id, report)
        before, started = rss_bytes(pid), time.monotonic()
        for _ in range(events - events // 10):
            await worker.report_event(run.id, report)
        heard = await asyncio.wait_for(asyncio.gather(*reading), WITHIN_S)
        took_s, after = time.monotonic() - started, rss_bytes(pid)
        for each in closed:
            each.close()
        await coordinator.cancel(run.id)
    whole = all(each.ids == list(range(1, last + 1)) for each in heard)
    received = sum(each.bytes for each in heard)
    return Followed(len(heard), deaf, events, took_s, received, whole, before, after)


def _deaf(host: str, port: int, run_id: str) -> socket.socket:
    """Asks for the stream and reads nothing of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF_BUFFER_BYTES)
    client.connect((host, port))
    client.sendall(_asked(host, run_id))
    return client


async def _read(host: str, port: int, run_id: str, last: int) -> Heard:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(_asked(host, run_id))
    heard = Heard([], 0)
    while not heard.ids or heard.ids[-1] < last:
        line = await reader.readline()
        if not line:
            break
        heard.bytes += len(line)
        if found := re.match(rb"id: (\d+)", line):
            heard.ids.append(int(found[1]))
    writer.close()
    return heard


def _asked(host: str, run_id: str) -> bytes:
    return f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n".encode()


def rss_bytes(pid: int) -> int:
    """What the process has in memory now."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])
