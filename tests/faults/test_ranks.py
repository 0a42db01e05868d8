"""A run of two ranks, as torchrun starts them: the same as in one process, and whoever of them is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
import torch
from cluster import WAIT_S, Cluster, ended
from safetensors.torch import load_file

from tutelage.standalone.children import Child
from tutelage.trainer.exits import ExitCode
from tutelage_client.history import History, other_weights

pytestmark = pytest.mark.asyncio(loop_scope="session")
SPEC: dict[str, Any] = {"deterministic": True, "optim": {"steps": 18}, "checkpoint": {"every": 3}}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2", "-m", "--"]


def two_ranks(cluster: Cluster, run_id: str) -> Child:
    child = cluster.trainer(run_id, "ranks")
    flags = child.argv[child.argv.index("tutelage.trainer") :]
    child.argv = [sys.executable, *TORCHRUN, *flags]
    return child


def pid_of(child: Child, rank: int) -> int:
    """Of the process that is this rank now."""
    ranks = psutil.Process(child.pid).children()
    return next(each.pid for each in ranks if each.environ().get("RANK") == str(rank))


def launched_rank(run_id: str, rank: int) -> int:
    """The process that is this rank of a launch for the run."""
    wanted = {"RANK": str(rank), "TUTELAGE_TRAINER_RUN": run_id}
    environments = ((each.pid, each.info["environ"] or {}) for each in psutil.process_iter(["environ"]))
    return next(pid for pid, has in environments if wanted.items() <= has.items())


def rows(found: History) -> list[dict[str, Any]]:
    """What a step tells that follows from weights and text."""
    names = ("loss", "reverse_kl", "grad_norm", "learned_tokens", "tokens", "length")
    return [{name: row[name] for name in names if row.get(name) is not None} for row in found.metrics]


def weights(found: History) -> dict[str, torch.Tensor]:
    return load_file(Path(found.checkpoints[-1].path) / "model" / "model.safetensors")


def assert_alike(found: History, other: History) -> None:
    """To the tolerance of sums in another order."""
    assert [row["step"] for row in found.metrics] == [row["step"] for row in other.metrics]
    for mine, theirs in zip(rows(found), rows(other), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-5)
    for name, weight in weights(other).items():
        torch.testing.assert_close(weights(found)[name], weight, rtol=1e-3, atol=1e-4)


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def undisturbed(processes: Cluster) -> History:
    """The run of two ranks that nothing happened to."""
    await processes.mend()
    run_id = await processes.submit(**SPEC)
    child = two_ranks(processes, run_id)
    await child.start()
    assert await ended(child, WAIT_S) == ExitCode.DONE
    return await processes.sound(run_id)


async def test_two_ranks_end_where_one_process_does(cluster: Cluster, undisturbed: History) -> None:
    run_id = await cluster.submit(**SPEC)
    assert await cluster.train(run_id) == ExitCode.DONE
    assert_alike(await cluster.sound(run_id), undisturbed)


async def test_whichever_rank_is_killed_all_go_on_from_the_last_checkpoint_and_end_with_the_same_bits(
    cluster: Cluster, undisturbed: History
) -> None:
    """First one that follows, which rank 0 tells at once; then rank 0, whose lease must run out."""
    run_id = await cluster.submit(**SPEC)
    child = two_ranks(cluster, run_id)
    await child.start()
    for epoch, (rank, step) in enumerate(((1, 4), (0, 10)), start=1):
        await cluster.until(run_id, lambda run, e=epoch, s=step: run.epoch == e and run.step >= s)
        os.kill(pid_of(child, rank), signal.SIGKILL)
    assert await ended(child, WAIT_S) == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert found.run.epoch == 3
    assert other_weights(found.checkpoints, undisturbed.checkpoints) == []
    assert rows(found) == rows(undisturbed)


async def test_what_one_process_began_two_ranks_go_on_with_and_one_process_ends(
    cluster: Cluster, undisturbed: History
) -> None:
    run_id = await cluster.submit(**SPEC)
    alone = asyncio.create_task(cluster.train(run_id))
    await cluster.until(run_id, lambda run: run.step >= 4)
    async with cluster.client() as client:
        await client.pause(run_id)
        assert await alone == ExitCode.DRAINED
        await client.resume(run_id)
    child = two_ranks(cluster, run_id)
    await child.start()
    begun = await cluster.until(run_id, lambda run: run.epoch == 2 and run.status == "running")
    await cluster.until(run_id, lambda run: run.step >= begun.step + 3)
    os.kill(child.pid, signal.SIGTERM)  # torchrun tells its ranks; rank 0 saves and hands back
    await ended(child, WAIT_S)
    drained = await cluster.until(run_id, lambda run: run.status == "queued")
    assert drained.step < SPEC["optim"]["steps"]
    assert await cluster.train(run_id) == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert found.run.epoch == 3
    assert len(found.learned) == found.run.step, "nothing was done twice"
    assert_alike(found, undisturbed)


async def test_ranks_that_run_ahead_of_their_scores_keep_the_bound_and_lose_nothing_with_a_rank(
    cluster: Cluster,
) -> None:
    run_id = await cluster.submit(rollout={"max_lag": 2}, optim=SPEC["optim"], checkpoint=SPEC["checkpoint"])
    child = two_ranks(cluster, run_id)
    await child.start()
    await cluster.until(run_id, lambda run: run.step >= 4)
    os.kill(pid_of(child, 1), signal.SIGKILL)
    assert await ended(child, WAIT_S) == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert found.run.epoch == 2
    lags = {row["lag_max"] for row in found.metrics if row.get("lag_max") is not None}
    assert 0 < max(lags) <= 2


async def test_ranks_that_a_coordinator_launched_are_launched_again_after_one_of_them_was_killed(
    cluster: Cluster,
) -> None:
    run_id = await cluster.submit(optim=SPEC["optim"], checkpoint=SPEC["checkpoint"])
    several = ["--launcher", "subprocess", "--launch-processes", "2", "--launch-after-s", "0"]
    launcher = cluster.second_coordinator(*several, "--redis-url", f"redis://127.0.0.1:{cluster.redis_port}/0")
    await launcher.start()
    try:
        await cluster.until(run_id, lambda run: run.epoch == 1 and run.step >= 4)
        os.kill(launched_rank(run_id, 1), signal.SIGKILL)
        await cluster.until(run_id, lambda run: run.status.final)
        found = await cluster.sound(run_id)
        assert found.run.epoch == 2
        assert sum("a trainer is launched: subprocess" in event.message for event in found.events) == 2
    finally:
        await launcher.stop(grace_s=5)
