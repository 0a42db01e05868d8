"""Samplers in processes of their own: they come, go and die, and every text is written and learned from once."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from cluster import Cluster, ended, kill
from tiny_run import ROLLOUTS

from tutelage.standalone.children import Child
from tutelage.trainer.exits import ExitCode
from tutelage_client.wire import sampler_queue

pytestmark = pytest.mark.asyncio(loop_scope="session")
STEPS = 12
QUEUE = sampler_queue("pool")
ELSEWHERE: dict[str, Any] = {
    "rollout": {"sampler": "pool", "max_lag": 2},
    "stabilizers": [{"kind": "ratio_clip"}],
    "optim": {"steps": STEPS},
    "checkpoint": {"every": 3},
}


async def test_a_sampler_that_is_killed_with_text_in_hand_loses_nothing(cluster: Cluster) -> None:
    run_id = await cluster.submit(**ELSEWHERE)
    samplers = [cluster.sampler("pool") for _ in range(2)]
    for sampler in samplers:
        await sampler.start()
    training = asyncio.create_task(cluster.train(run_id))
    try:
        await cluster.until(run_id, lambda run: run.step >= 2)
        victim = await caught(cluster, samplers)
        kill(victim)
        await ended(victim)
        assert await training == ExitCode.DONE
    finally:
        await stopped(samplers)
    found = await cluster.sound(run_id)
    rows = found.metrics[1:]
    assert max(row["lag_max"] for row in rows) <= 2
    assert rows[-1]["rollouts/trained"] == rows[-1]["rollouts/submitted"] == STEPS * ROLLOUTS
    told = [event.message for event in found.events]
    assert not any("the trainer writes them itself" in message for message in told), told


async def test_a_trainer_that_goes_on_from_an_older_step_learns_nothing_of_text_that_its_former_self_asked_for(
    cluster: Cluster,
) -> None:
    """The jobs that were left are of snapshots that are gone; samplers end them and nobody hears."""
    run_id = await cluster.submit(**ELSEWHERE)
    sampler = cluster.sampler("pool")
    victim = cluster.trainer(run_id, "victim")
    await sampler.start()
    await victim.start()
    try:
        await cluster.until(run_id, lambda run: run.step >= 4)
        kill(victim)
        await cluster.until(run_id, lambda run: run.status == "queued")
        assert await cluster.train(run_id) == ExitCode.DONE
    finally:
        await stopped([sampler])
    found = await cluster.sound(run_id)
    rows = found.metrics[1:]
    assert {row["epoch"] for row in rows} == {1, 2}
    assert max(row["lag_max"] for row in rows) <= 2
    assert rows[-1]["rollouts/trained"] == rows[-1]["rollouts/submitted"] == STEPS * ROLLOUTS
    assert not list(cluster.folder.glob("coordinator/**/snapshots/e*/0*")), "nobody wants them any more"


async def caught(cluster: Cluster, samplers: list[Child]) -> Child:
    """A sampler that is frozen with text in hand."""
    while True:
        victim = await cluster.holder(QUEUE, samplers)
        os.kill(victim.pid, signal.SIGSTOP)
        if any(name.decode().endswith(f"-{victim.pid}") for name in cluster.holders(QUEUE)):
            return victim
        os.kill(victim.pid, signal.SIGCONT)


async def stopped(samplers: list[Child]) -> None:
    for sampler in samplers:
        await sampler.stop(grace_s=10)
