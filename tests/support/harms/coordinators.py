"""A coordinator that dies, freezes, races another one, waits for its database, or whose clock is set."""

from __future__ import annotations

import asyncio
import sqlite3
from random import Random

from cluster import frozen, kill, lapse
from stage import Stage

from harms.queues import HOUR_S


async def coordinator_killed(stage: Stage, random: Random) -> None:
    kill(stage.cluster.coordinator)


async def coordinator_frozen(stage: Stage, random: Random) -> None:
    async with frozen(stage.cluster.coordinator):
        await lapse(random.uniform(0.2, 1.3) * stage.cluster.lease_s)


async def two_coordinators(stage: Stage, random: Random) -> None:
    other = stage.cluster.second_coordinator()
    other.env = stage.cluster.coordinator.env  # one machine has one clock
    try:
        await other.start()
        await lapse(random.uniform(2, 5))
    finally:
        await other.stop(grace_s=5)


async def database_locked(stage: Stage, random: Random) -> None:
    locking = sqlite3.connect(stage.cluster.folder / "coordinator" / "coordinator.db", isolation_level=None)
    locking.execute("BEGIN IMMEDIATE")
    await lapse(random.uniform(1, 5))
    locking.close()


async def readers_do_not_read(stage: Stage, random: Random) -> None:
    way = f"GET /v1/runs/{stage.run_id}/events HTTP/1.1"
    request = f"{way}\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()
    port = stage.cluster.coordinator_port
    readers = [await asyncio.open_connection("127.0.0.1", port, limit=1) for _ in range(100)]
    for _, writer in readers:
        writer.write(request)
    await lapse(random.uniform(2, 5))
    for _, writer in readers:
        writer.transport.abort()


async def coordinators_clock_set(stage: Stage, random: Random) -> None:
    stage.coordinator_clock.by(random.choice([HOUR_S, 0, -HOUR_S]))
