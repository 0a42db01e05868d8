"""Runs whose next steps are under way while one is learned from: nothing is lost, and nothing learned twice."""

from __future__ import annotations

from typing import Any

import pytest
from cluster import Cluster, kill
from tiny_run import ROLLOUTS

from tutelage.trainer.exits import ExitCode

pytestmark = pytest.mark.asyncio(loop_scope="session")
STEPS = 12
AHEAD: dict[str, Any] = {
    "rollout": {"max_lag": 2},
    "stabilizers": [{"kind": "ratio_clip"}],
    "optim": {"steps": STEPS},
    "checkpoint": {"every": 3},
}


async def test_a_trainer_killed_with_steps_under_way_learns_from_each_rollout_once(cluster: Cluster) -> None:
    run_id = await cluster.submit(**AHEAD)
    victim = cluster.trainer(run_id, "victim")
    await victim.start()
    await cluster.until(run_id, lambda run: run.step >= 4)
    kill(victim)
    await cluster.until(run_id, lambda run: run.status == "queued")
    assert await cluster.train(run_id) == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert {row["epoch"] for row in found.metrics} == {1, 2}
    rows = found.metrics[1:]
    assert max(row["lag_max"] for row in rows) in (1, 2)
    assert rows[-1]["rollouts/trained"] == rows[-1]["rollouts/submitted"] == STEPS * ROLLOUTS
