"""A queue that dies, freezes, forgets, is full, says things twice, or whose clock is set."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from cluster import Cluster, ended, frozen, kill, lapse
from rooted import filled
from stage import Stage

from harms.harm import STEP_S

HOUR_S = 3600


async def queue_killed(stage: Stage, random: Random) -> None:
    await _queue_again(stage.cluster)


async def queue_file_cut(stage: Stage, random: Random) -> None:
    await _queue_again(stage.cluster, cut_bytes=random.randrange(200, 3000))


async def queue_file_lost(stage: Stage, random: Random) -> None:
    await _queue_again(stage.cluster, cut_bytes=None)


async def _queue_again(cluster: Cluster, cut_bytes: int | None = 0) -> None:
    """Kill the server and start it on its file, without the last bytes of it or without it."""
    kill(cluster.redis)
    await ended(cluster.redis)
    for path in (cluster.folder / "queue" / "appendonlydir").iterdir():
        if cut_bytes is None:
            path.unlink()
        elif path.name.endswith("incr.aof"):
            path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size - cut_bytes)])
    await cluster.redis.start()


async def queue_frozen(stage: Stage, random: Random) -> None:
    async with frozen(stage.cluster.redis):
        await lapse(random.uniform(3, 8))


async def queue_flushed(stage: Stage, random: Random) -> None:
    stage.cluster.raw.flushall()


async def queue_full(stage: Stage, random: Random) -> None:
    stage.cluster.raw.config_set("maxmemory", "1mb")
    try:
        await lapse(random.uniform(2, 6))
    finally:
        stage.cluster.raw.config_set("maxmemory", "0")


async def queues_disk_full(stage: Stage, random: Random) -> None:
    """It takes no write, as it could not put it into its file."""
    with filled(stage.cluster.folder / "queue"):
        async with asyncio.timeout(STEP_S):
            while stage.cluster.raw.info("persistence")["aof_last_write_status"] == "ok":  # type: ignore[index]
                await asyncio.sleep(0.05)
        await lapse(random.uniform(1, 5))


async def answers_again(stage: Stage, random: Random) -> None:
    """All replies so far are announced again, the last first."""
    stream = f"tutelage:replies:{stage.run_id}"
    replies: Any = stage.cluster.raw.xrange(stream)
    for _, fields in reversed(replies[-200:]):
        stage.cluster.raw.xadd(stream, fields)


async def queues_clock_set(stage: Stage, random: Random) -> None:
    stage.queue_clock.by(random.choice([HOUR_S, 0, -HOUR_S]))
