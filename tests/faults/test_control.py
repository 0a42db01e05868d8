"""Trainers and coordinators that die, freeze, race, or do not hear one another: one attempt counts."""

from __future__ import annotations

import asyncio
import os
import signal

import psutil
import pytest
from cluster import LEASE_S, WAIT_S, Cluster, ended, frozen, kill, lapse, restart

from tutelage.trainer.exits import ExitCode
from tutelage_client.history import out_of_bounds
from tutelage_client.worker import WorkerClient

pytestmark = pytest.mark.asyncio(loop_scope="session")
LONG = {"optim": {"steps": 25}, "checkpoint": {"every": 4}}


async def test_a_zombie_is_fenced_and_leaves_no_trace(cluster: Cluster) -> None:
    run_id = await cluster.submit(**LONG)
    zombie = cluster.trainer(run_id, "zombie")
    await zombie.start()
    await cluster.until(run_id, lambda run: run.step >= 5)
    async with frozen(zombie):
        await cluster.until(run_id, lambda run: run.status == "queued")
        successor = asyncio.create_task(cluster.train(run_id))
        await cluster.until(run_id, lambda run: run.epoch == 2 and run.status == "running")
    assert await ended(zombie) == ExitCode.FENCED
    assert await successor == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert {row["epoch"] for row in found.metrics} == {1, 2}


async def test_a_killed_trainer_is_followed_by_another_one(cluster: Cluster) -> None:
    run_id = await cluster.submit(**LONG)
    victim = cluster.trainer(run_id, "victim")
    await victim.start()
    await cluster.until(run_id, lambda run: run.step >= 5)
    kill(victim)
    await cluster.until(run_id, lambda run: run.status == "queued")
    assert await cluster.train(run_id) == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert found.run.epoch == 2
    assert len(found.learned) >= len(found.metrics) - 1


async def test_a_trainer_that_is_told_to_go_saves_hands_back_and_says_so(cluster: Cluster) -> None:
    run_id = await cluster.submit(**LONG)
    drained = cluster.trainer(run_id, "drained")
    await drained.start()
    await cluster.until(run_id, lambda run: run.step >= 5)
    os.kill(drained.pid, signal.SIGTERM)
    assert await ended(drained) == ExitCode.DRAINED
    assert await cluster.train(run_id) == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert len(found.learned) == found.run.step, "a drained trainer's work is not done again"


async def test_a_teacher_that_is_told_to_go_finishes_or_hands_back(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    training = asyncio.create_task(cluster.train(run_id))
    leaving = await cluster.holder()
    os.kill(leaving.pid, signal.SIGTERM)
    assert await ended(leaving) == 0
    assert await training == ExitCode.DONE
    await cluster.sound(run_id)


async def test_a_coordinator_killed_again_and_again_loses_and_doubles_no_run(cluster: Cluster) -> None:
    run_id = await cluster.submit(optim={"steps": 20})
    training = asyncio.create_task(_train_to_the_end(cluster, run_id))
    seen: list[int] = []
    following = asyncio.create_task(_follow(cluster, run_id, seen))
    for _ in range(3):
        step = (await cluster.until(run_id, lambda _: True)).step
        await cluster.until(run_id, lambda run, step=step: run.status.final or run.step > step)
        kill(cluster.coordinator)
        await restart(cluster.coordinator)
    await asyncio.wait_for(training, WAIT_S)
    found = await cluster.sound(run_id)
    await asyncio.wait_for(following, WAIT_S)
    assert seen == [event.id for event in found.events], "the stream has no gap and no duplicate"


async def _train_to_the_end(cluster: Cluster, run_id: str) -> None:
    """One attempt after another: a coordinator that is away for longer than a lease ends one."""
    while await cluster.train(run_id) != ExitCode.DONE:
        await cluster.until(run_id, lambda run: run.status == "queued")


async def _follow(cluster: Cluster, run_id: str, seen: list[int]) -> None:
    async with cluster.client() as client:
        async for event in client.events(run_id):
            seen.append(event.id)


async def test_of_two_coordinators_and_many_trainers_one_starts_the_run(cluster: Cluster) -> None:
    other = cluster.second_coordinator()
    await other.start()
    try:
        assert other.url is not None
        run_id = await cluster.submit()
        async with WorkerClient(cluster.url) as one, WorkerClient(other.url) as two:
            asked = [client.lease(f"trainer-{i}") for i in range(8) for client in (one, two)]
            granted = [lease for lease in await asyncio.gather(*asked) if lease is not None]
        assert [(lease.run_id, lease.epoch) for lease in granted] == [(run_id, 1)]
        await cluster.until(run_id, lambda run: run.status == "queued")  # the winner never beat
        assert await cluster.train(run_id) == ExitCode.DONE
        await cluster.sound(run_id)
    finally:
        await other.stop(grace_s=5)


@pytest.mark.parametrize("fault", ["down", "black_hole", "drop_replies"])
async def test_a_trainer_that_does_not_hear_the_coordinator_fences_itself_before_its_lease_ends(
    fault: str, cluster: Cluster
) -> None:
    run_id = await cluster.submit(**LONG)
    cut_off = asyncio.create_task(cluster.train(run_id, "cut-off"))
    await cluster.until(run_id, lambda run: run.step >= 2)
    await cluster.coordinator_way.set(**{fault: True})
    # With drop_replies its requests arrive and its lease lives on; it must not count on that.
    assert await asyncio.wait_for(cut_off, LEASE_S * 10) == ExitCode.FENCED
    await cluster.coordinator_way.set()
    await cluster.until(run_id, lambda run: run.status == "queued")
    assert await cluster.train(run_id) == ExitCode.DONE
    await cluster.sound(run_id)


async def test_a_short_silence_of_the_coordinator_is_not_noticed(cluster: Cluster) -> None:
    run_id = await cluster.submit(**LONG)
    training = asyncio.create_task(cluster.train(run_id))
    await cluster.until(run_id, lambda run: run.step >= 2)
    await cluster.coordinator_way.set(reset=True)
    await lapse(LEASE_S / 4)
    await cluster.coordinator_way.set()
    assert await training == ExitCode.DONE
    assert (await cluster.sound(run_id)).run.epoch == 1


async def test_readers_of_events_that_do_not_read_cost_the_coordinator_no_memory(cluster: Cluster) -> None:
    """200 readers, of whom every other one takes the first byte and nothing after it."""
    run_id = await cluster.submit(optim={"steps": 40})
    request = f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()
    readers = [await asyncio.open_connection("127.0.0.1", cluster.coordinator_port, limit=1) for _ in range(200)]
    try:
        for _, to_coordinator in readers:
            to_coordinator.write(request)
        for from_coordinator, _ in readers:
            await from_coordinator.readexactly(1)  # it is being served
        process = psutil.Process(cluster.coordinator.pid)
        before = process.memory_info().rss
        reading = [asyncio.create_task(_read_on(from_coordinator)) for from_coordinator, _ in readers[::2]]
        assert await cluster.train(run_id) == ExitCode.DONE
        found = await cluster.sound(run_id)
        assert found.run.epoch == 1, "heartbeats came through"
        assert out_of_bounds("the coordinator's memory", [process.memory_info().rss], before + 32 * 2**20) == []
        assert len(found.events) > 40
        ended = b"id: %d\n" % found.events[-1].id
        assert all(ended in said for said in await asyncio.wait_for(asyncio.gather(*reading), 30))
    finally:
        for _, to_coordinator in readers:
            to_coordinator.transport.abort()


async def _read_on(from_coordinator: asyncio.StreamReader) -> bytes:
    """Everything up to the end of the stream, which the last chunk of its body says."""
    said = b""
    while not said.endswith(b"\r\n0\r\n\r\n"):
        more = await from_coordinator.read(65536)
        assert more, f"the stream was cut off after {said[-300:]!r}"
        said += more
    return said
