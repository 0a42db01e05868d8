"""A queue that dies, freezes, forgets, fills up, or is behind a bad network: no effect is lost or doubled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, ended, frozen, kill, restart

from tutelage.trainer.exits import ExitCode

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_killed_server_comes_back_on_its_file_and_nothing_is_lost(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    training = asyncio.create_task(cluster.train(run_id))
    await cluster.holder()
    kill(cluster.redis)
    await restart(cluster.redis)
    assert await training == ExitCode.DONE
    await cluster.sound(run_id)


async def test_a_frozen_server_is_waited_for(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    training = asyncio.create_task(cluster.train(run_id))
    await cluster.holder()
    step = (await cluster.until(run_id, lambda _: True)).step
    async with frozen(cluster.redis):
        await asyncio.sleep(7)  # longer than every timeout of a command
        assert not training.done()
    assert await training == ExitCode.DONE
    assert (await cluster.sound(run_id)).run.step > step


NETWORKS: dict[str, dict[str, Any]] = {
    "slow": {"latency_s": 0.02},
    "in pieces": {"slice_bytes": 7},
    "narrow": {"bytes_per_s": 60_000.0},
    "cut after a while": {"limit_bytes": 20_000},
}


@pytest.mark.parametrize("name", NETWORKS)
async def test_a_bad_network_costs_time_and_nothing_else(name: str, cluster: Cluster) -> None:
    await cluster.redis_way.set(**NETWORKS[name])
    await cluster.teachers_way.set(**NETWORKS[name])
    run_id = await cluster.submit(optim={"steps": 3})
    assert await cluster.train(run_id) == ExitCode.DONE
    await cluster.sound(run_id)


@pytest.mark.parametrize("fault", ["down", "reset", "black_hole", "drop_replies"])
@pytest.mark.parametrize("way", ["redis_way", "teachers_way"])
async def test_a_way_that_is_cut_for_a_while_is_waited_for(way: str, fault: str, cluster: Cluster) -> None:
    run_id = await cluster.submit(optim={"steps": 4})
    training = asyncio.create_task(cluster.train(run_id))
    await cluster.holder()
    await getattr(cluster, way).set(**{fault: True})
    await asyncio.sleep(2.0)
    assert not training.done() or way == "teachers_way"
    await getattr(cluster, way).set()
    assert await training == ExitCode.DONE
    await cluster.sound(run_id)


async def test_a_server_that_forgot_everything_is_filled_again(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    training = asyncio.create_task(cluster.train(run_id))
    await cluster.holder()
    cluster.raw.flushall()
    assert await training == ExitCode.DONE
    await cluster.sound(run_id)


@pytest.mark.parametrize("damage", ["cut", "deleted"])
async def test_a_server_that_lost_its_file_is_filled_again(damage: str, cluster: Cluster) -> None:
    run_id = await cluster.submit()
    training = asyncio.create_task(cluster.train(run_id))
    await cluster.holder()
    kill(cluster.redis)
    await ended(cluster.redis)
    _damage(cluster.folder / "queue" / "appendonlydir", damage)
    await cluster.redis.start()
    assert await training == ExitCode.DONE
    await cluster.sound(run_id)


def _damage(folder: Path, how: str) -> None:
    for path in folder.iterdir():
        if how == "deleted":
            path.unlink()
        elif path.name.endswith("incr.aof"):
            path.write_bytes(path.read_bytes()[:-1000])


async def test_a_full_server_makes_the_trainer_wait_and_loses_nothing(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    training = asyncio.create_task(cluster.train(run_id))
    await cluster.holder()
    cluster.raw.config_set("maxmemory", "1mb")
    step = (await cluster.until(run_id, lambda run: run.conditions.get("queue_available") is False)).step
    assert not training.done()
    cluster.raw.config_set("maxmemory", "0")
    assert await training == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert found.run.step > step
    assert found.run.conditions["queue_available"]
    (refused,) = [event for event in found.events if "does not serve the run's questions" in event.message]
    assert "maxmemory" in refused.message
    assert [event for event in found.events if "serves the run's questions again" in event.message]


async def test_everything_delivered_twice_and_out_of_order_is_learned_once(cluster: Cluster) -> None:
    """Another reader's copies of all replies are announced again, the last first, while the run goes on."""
    run_id = await cluster.submit()
    training = asyncio.create_task(cluster.train(run_id))
    while not training.done():
        replies: Any = cluster.raw.xrange(f"tutelage:replies:{run_id}")
        for _, fields in reversed(replies[-8:]):
            cluster.raw.xadd(f"tutelage:replies:{run_id}", fields)
        await asyncio.sleep(0.1)
    assert await training == ExitCode.DONE
    await cluster.sound(run_id)


async def test_a_trainer_without_room_in_the_queue_waits_for_it_and_learns_from_everything(cluster: Cluster) -> None:
    run_id = await cluster.submit(optim={"steps": 3})
    narrow = cluster.trainer(run_id, "narrow")
    narrow.argv += ["--max-queued-tokens", "20"]  # two questions of a step's four
    await narrow.start()
    ending, seen = asyncio.create_task(ended(narrow)), [0]
    while not ending.done():
        seen.append(int(cluster.raw.hget("tutelage:{toy}:load", "tokens") or 0))  # type: ignore[arg-type]
        await asyncio.sleep(0.005)
    assert await ending == ExitCode.DONE
    assert 0 < max(seen) <= 20
    assert "no room in the queue" in narrow.log.read_text()
    await cluster.sound(run_id)
