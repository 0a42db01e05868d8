"""I4 with real processes: whoever is killed in a deterministic run, and wherever, it ends with the same bits."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cluster import WAIT_S, Cluster, kill, restart
from forked import trainer

from tutelage.standalone.children import Child
from tutelage.trainer.crashes import CrashPoint
from tutelage.trainer.exits import ExitCode
from tutelage_client.history import other_weights
from tutelage_client.wire import CheckpointView, Outcome
from tutelage_client.worker import WorkerClient

pytestmark = pytest.mark.asyncio(loop_scope="session")
SPEC: dict[str, Any] = {"deterministic": True, "optim": {"steps": 7}, "checkpoint": {"every": 3}}
# Passed once a step: the fifth passing lies between two checkpoints. The others are passed once a checkpoint.
OF_A_STEP = (CrashPoint.AFTER_SCORE_FETCH, CrashPoint.AFTER_BACKWARD, CrashPoint.AFTER_OPTIMIZER_STEP)


async def attempt(cluster: Cluster, run_id: str, *flags: str) -> int:
    log = cluster.folder / f"trainer-{run_id}.log"
    return await trainer([*cluster.trainer_flags(run_id, "bits"), *flags], log, WAIT_S)


async def to_the_end(cluster: Cluster, run_id: str) -> None:
    """One attempt after another: a coordinator that is away for too long ends one."""
    while await attempt(cluster, run_id) != ExitCode.DONE:
        await cluster.until(run_id, lambda run: run.status == "queued")


def hashes(checkpoint: CheckpointView) -> dict[str, str]:
    """sha256 of the weights and of the optimizer."""
    files = json.loads((Path(checkpoint.path) / "manifest.json").read_text())["files"]
    found = {name: told["sha256"] for name, told in files.items() if name.endswith(".safetensors")}
    assert set(found) == {"model/model.safetensors", "optimizer.safetensors"}
    return found


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def undisturbed(processes: Cluster) -> list[CheckpointView]:
    """The checkpoints of the run that nothing happened to."""
    await processes.mend()
    run_id = await processes.submit(**SPEC)
    assert await attempt(processes, run_id) == ExitCode.DONE
    return list((await processes.sound(run_id)).checkpoints)


async def assert_same_bits(cluster: Cluster, run_id: str, undisturbed: list[CheckpointView]) -> None:
    found = await cluster.sound(run_id)
    assert [each.step for each in found.checkpoints] == [each.step for each in undisturbed]
    assert other_weights(found.checkpoints, undisturbed) == []
    assert hashes(found.checkpoints[-1]) == hashes(undisturbed[-1])


@pytest.mark.parametrize("point", CrashPoint)
async def test_a_trainer_killed_at_any_point_leaves_the_bits_as_they_are(
    point: CrashPoint, cluster: Cluster, undisturbed: list[CheckpointView]
) -> None:
    run_id = await cluster.submit(**SPEC)
    crash_at = f"{point}:{5 if point in OF_A_STEP else 2}"
    assert await attempt(cluster, run_id, "--crash-at", crash_at) == -signal.SIGKILL
    async with WorkerClient(cluster.url) as worker:  # as the waiting trainer says it of its child
        await worker.report_outcome(run_id, Outcome(epoch=1, result="crashed"))
    assert await attempt(cluster, run_id) == ExitCode.DONE
    await assert_same_bits(cluster, run_id, undisturbed)


VICTIMS: dict[str, Callable[[Cluster, Child], Child]] = {
    "teacher": lambda _, holder: holder,
    "queue": lambda cluster, _: cluster.redis,
    "coordinator": lambda cluster, _: cluster.coordinator,
}


@pytest.mark.parametrize("name", VICTIMS)
async def test_whoever_else_is_killed_with_work_in_hand_leaves_the_bits_as_they_are(
    name: str, cluster: Cluster, undisturbed: list[CheckpointView]
) -> None:
    run_id = await cluster.submit(**SPEC)
    training = asyncio.create_task(to_the_end(cluster, run_id))
    await cluster.until(run_id, lambda run: run.step >= 1)
    victim = VICTIMS[name](cluster, await cluster.holder())
    kill(victim)
    await restart(victim)
    await asyncio.wait_for(training, WAIT_S)
    await assert_same_bits(cluster, run_id, undisturbed)


async def test_another_seed_has_other_bits(cluster: Cluster, undisturbed: list[CheckpointView]) -> None:
    run_id = await cluster.submit(**SPEC | {"seed": 6})
    assert await attempt(cluster, run_id) == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert len(other_weights(found.checkpoints, undisturbed)) == len(undisturbed)
