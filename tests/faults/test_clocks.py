"""A host's clock that is set forward or back while a run goes on: no lease is lost, none outlives its holder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from cluster import JOB_LEASE_S, LEASE_S, WAIT_S, Cluster, ended, kill, restart
from moved_clock import MovedClock
from simulation import Clock, simulated_database

from tutelage.coordinator.clock import ClockWatch
from tutelage.trainer.exits import ExitCode

pytestmark = pytest.mark.asyncio(loop_scope="session")
HOUR_S = 3600


@pytest_asyncio.fixture(loop_scope="session")
async def clock(processes: Cluster, cluster: Cluster) -> AsyncGenerator[MovedClock]:
    """Started with it: the queue's server and the coordinator, while the test goes on."""
    moved = MovedClock(processes.folder)
    for child in (cluster.redis, cluster.coordinator):
        child.env = cluster.env | moved.env
    yield moved
    for child in (cluster.redis, cluster.coordinator):
        child.env = cluster.env
        kill(child)
        await ended(child)  # `mend` starts it before the next test


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
async def test_a_queue_whose_clock_is_set_delivers_what_a_dead_teacher_held(
    step_s: int, clock: MovedClock, cluster: Cluster
) -> None:
    kill(cluster.redis)
    await restart(cluster.redis)
    run_id = await cluster.submit(optim={"steps": 20})
    training = asyncio.create_task(cluster.train(run_id))
    await cluster.until(run_id, lambda run: run.step >= 1)
    victim = await cluster.holder()
    clock.by(step_s)
    kill(victim)
    assert await asyncio.wait_for(training, WAIT_S) == ExitCode.DONE
    found = await cluster.sound(run_id)
    steps_s = [row["seconds"] for row in found.metrics if row.get("seconds")]
    assert max(steps_s) < 20 * JOB_LEASE_S


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
async def test_a_coordinator_whose_clock_is_set_takes_no_lease_away_and_keeps_none_for_the_dead(
    step_s: int, clock: MovedClock, cluster: Cluster
) -> None:
    kill(cluster.coordinator)
    await restart(cluster.coordinator)
    run_id = await cluster.submit(optim={"steps": 30}, checkpoint={"every": 4})
    training = asyncio.create_task(cluster.train(run_id))
    await cluster.until(run_id, lambda run: run.step >= 2)
    clock.by(step_s)
    assert await asyncio.wait_for(training, WAIT_S) == ExitCode.DONE
    assert (await cluster.sound(run_id)).run.epoch == 1, "the living trainer kept its lease"
    other = await cluster.submit(optim={"steps": 200}, checkpoint={"every": 4})
    dead = cluster.trainer(other, "dead")
    await dead.start()
    await cluster.until(other, lambda run: run.step >= 2)
    clock.by(0)
    kill(dead)
    await cluster.until(other, lambda run: run.status == "queued", within_s=5 * LEASE_S)
    async with cluster.client() as client:
        await client.cancel(other)


async def test_a_clock_that_is_set_is_told_from_one_that_goes(tmp_path: Path) -> None:
    clock = Clock()
    with simulated_database(tmp_path, clock) as database:
        watch = ClockWatch(tolerance_s=5)
        assert not watch.moved(database)
        for step_s, is_moved in ((1, False), (HOUR_S, True), (0, False), (-HOUR_S, True), (-1, False)):
            clock.now_s += step_s
            assert watch.moved(database) is is_moved
