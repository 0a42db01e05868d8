"""Ways between the processes that are cut, in one direction or both, or bad."""

from __future__ import annotations

from random import Random
from typing import Any

from cluster import lapse
from fault_proxy import FaultProxy
from stage import Stage


async def queue_cut_off(stage: Stage, random: Random) -> None:
    way = random.choice([stage.cluster.redis_way, stage.cluster.teachers_way])
    await _cut(way, random.choice(["down", "reset", "black_hole"]), random.uniform(1, 5))


async def replies_lost(stage: Stage, random: Random) -> None:
    way = random.choice([stage.cluster.redis_way, stage.cluster.teachers_way])
    await _cut(way, "drop_replies", random.uniform(1, 4))


async def coordinator_cut_off(stage: Stage, random: Random) -> None:
    """For longer or shorter than a lease, in one direction or both."""
    fault = random.choice(["down", "reset", "black_hole", "drop_replies"])
    await _cut(stage.cluster.coordinator_way, fault, random.uniform(0.2, 1.3) * stage.cluster.lease_s)


async def bad_network(stage: Stage, random: Random) -> None:
    faults: dict[str, Any] = random.choice([{"latency_s": 0.05}, {"slice_bytes": 50}, {"limit_bytes": 20_000}])
    for way in (stage.cluster.redis_way, stage.cluster.teachers_way):
        await way.set(**faults)
    await lapse(random.uniform(2, 6))
    for way in (stage.cluster.redis_way, stage.cluster.teachers_way):
        await way.set()


async def _cut(way: FaultProxy, fault: str, seconds: float) -> None:
    await way.set(**{fault: True})
    await lapse(seconds)
    await way.set()
