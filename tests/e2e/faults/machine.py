"""A trainer without memory, and a trainer that is frozen, by control groups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from cluster import Cluster, ended
from rooted import Group

from tutelage.standalone.children import Child
from tutelage.trainer.exits import ExitCode
from tutelage_client import history

pytestmark = pytest.mark.asyncio(loop_scope="session")
TOO_LITTLE_BYTES = 100 * 2**20


@asynccontextmanager
async def grouped(controller: str, name: str, trainer: Child) -> AsyncGenerator[Group]:
    """It runs in a control group of its own."""
    group = Group(controller, name)
    trainer.argv = [*group.before, *trainer.argv]
    try:
        yield group
    finally:
        await trainer.stop(grace_s=5)
        group.remove()


async def test_a_trainer_without_memory_says_so_and_is_tried_again_a_few_times(cluster: Cluster) -> None:
    """The one that waits for runs has enough; none that it starts can load its libraries."""
    run_id = await cluster.submit()
    agent = cluster.agent("starved")
    async with grouped("memory", "tutelage-starved", agent) as group:
        group.limit_memory(TOO_LITTLE_BYTES)
        await agent.start()
        run = await cluster.until(run_id, lambda run: run.status.final)
        assert agent.process is not None
        assert agent.process.returncode is None, "it lives on and takes the next run"
    assert (run.status, run.epoch) == ("failed", 4)
    assert run.error is not None
    assert (run.error.code, run.error.category) == ("out_of_memory", "infra")
    assert run.error.message.startswith("crashed 4 times without a new checkpoint; the last time: out of memory")
    assert "lower optim.micro_batch_tokens" in run.error.message
    assert history.broken(await cluster.history(run_id)) == []


async def test_a_trainer_whose_threads_are_all_frozen_is_fenced_when_they_wake(cluster: Cluster) -> None:
    run_id = await cluster.submit(optim={"steps": 20})
    zombie = cluster.trainer(run_id, "frozen")
    async with grouped("freezer", "tutelage-frozen", zombie) as group:
        await zombie.start()
        await cluster.until(run_id, lambda run: run.step >= 3)
        group.freeze(frozen=True)
        try:
            await cluster.until(run_id, lambda run: run.status == "queued")
            successor = asyncio.create_task(cluster.train(run_id))
            await cluster.until(run_id, lambda run: run.epoch == 2 and run.status == "running")
        finally:
            group.freeze(frozen=False)
        assert await ended(zombie) == ExitCode.FENCED
    assert await successor == ExitCode.DONE
    assert (await cluster.sound(run_id)).run.epoch == 2
