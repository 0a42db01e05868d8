"""A trainer in a network of its own, of which packets are lost one way, and of which replies alone are lost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from cluster import LEASE_S, Cluster, ended, lapse
from rooted import Network

from tutelage.trainer.exits import ExitCode
from tutelage_client.history import no_progress

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network("tutelage-ns", "10.213.77")
    try:
        yield network
    finally:
        network.remove()


@pytest.mark.parametrize("way", ["in", "out"])
async def test_a_trainer_whose_packets_are_lost_one_way_fences_itself_before_its_lease_ends(
    way: str, network: Network, cluster: Cluster
) -> None:
    run_id = await cluster.submit(optim={"steps": 20})
    cut_off = cluster.direct_trainer(run_id, network.host, network.before)
    await cut_off.start()
    await cluster.until(run_id, lambda run: run.step >= 2)
    with network.dropping(way):
        assert await ended(cut_off, LEASE_S * 10) == ExitCode.FENCED
    await cluster.until(run_id, lambda run: run.status == "queued")
    assert await cluster.train(run_id) == ExitCode.DONE
    assert (await cluster.sound(run_id)).run.epoch == 2


async def test_replies_of_the_queue_that_are_lost_have_had_their_effect_once(
    network: Network, cluster: Cluster
) -> None:
    run_id = await cluster.submit(optim={"steps": 20})
    trainer = cluster.direct_trainer(run_id, network.host, network.before)
    await trainer.start()
    await cluster.until(run_id, lambda run: run.step >= 2)
    with network.dropping("in", f"tcp sport {cluster.redis_port} tcp flags & (psh | ack) == psh | ack"):
        await lapse(3.0)
    mended_s = time.time()
    assert await ended(trainer) == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert found.run.epoch == 1
    assert no_progress(found.events, mended_s, 30.0) == []
