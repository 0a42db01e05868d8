"""Runs that begin at a checkpoint of another one, in real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from embedded_stack import SKILL, Up, finished, small_spec
from safetensors.torch import load_file
from torch import Tensor

from tutelage_client.history import broken, other_weights
from tutelage_client.wire import CheckpointView, RunStatus, RunView

EVERY_TWO: dict[str, Any] = {
    "optim": {"steps": 6, "lr": 1e-3},
    "checkpoint": {"every": 2, "keep": 3},
    "eval": {"every": 3},
}


@pytest.fixture(scope="module")
def parent(up: Up, data: Path) -> RunView:
    """A run of six steps that has ended."""

    async def ended() -> RunView:
        async with up.client() as client:
            run = await client.submit(small_spec(data, "parent", deterministic=True, **EVERY_TWO))
        return await finished(up, run.id)

    run = asyncio.run(ended())
    assert run.status is RunStatus.SUCCEEDED, f"{run.error}\n{up.logs()}"
    return run


async def checkpoint_of(up: Up, run: RunView, step: int) -> CheckpointView:
    async with up.client() as client:
        return next(each for each in await client.checkpoints(run.id) if each.step == step)


def distance(one: Path, other: Path) -> float:
    """The largest change of any weight."""
    before, after = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    moved: list[Tensor] = [
        (before[name].float() - after[name].float()).abs().max() for name in before.keys() & after.keys()
    ]
    return max(float(each) for each in moved)


async def test_a_fork_with_another_learning_rate_goes_on_from_the_weights_of_the_other_run(
    up: Up, parent: RunView
) -> None:
    async with up.client() as client:
        fork = await client.fork(parent.id, step=4, spec={"optim": {"lr": 1e-9, "steps": 7}})
    fork = await finished(up, fork.id)
    assert fork.status is RunStatus.SUCCEEDED, f"{fork.error}\n{up.logs()}"
    assert fork.forked_from is not None
    assert (fork.forked_from.step, fork.forked_from.changed) == (4, ["optim.lr", "optim.steps"])
    theirs, last = await checkpoint_of(up, parent, 4), await checkpoint_of(up, fork, 6)
    began = Path(theirs.path) / "model"
    moved = distance(began, SKILL / "student")
    assert moved > 1e-4, "the other run had learned"
    assert distance(began, Path(last.path) / "model") < 1e-7
    async with up.client() as client:
        assert [row["step"] for row in await client.metrics(fork.id)] == [5, 6, 7]
        assert [row["lr"] for row in await client.metrics(fork.id)] == [1e-9] * 3
        assert broken(await client.history(fork.id)) == []
        assert broken(await client.history(parent.id)) == []
        messages = [event.message for event in (await client.event_page(parent.id)).data]
    assert f"{fork.id} begins at step 4 of this run" in messages


async def test_a_deterministic_fork_without_a_change_ends_with_the_same_weights(up: Up, parent: RunView) -> None:
    async with up.client() as client:
        fork = await client.fork(parent.id, step=2)
        fork = await finished(up, fork.id)
        assert fork.status is RunStatus.SUCCEEDED, f"{fork.error}\n{up.logs()}"
        found, undisturbed = await client.checkpoints(fork.id), await client.checkpoints(parent.id)
        assert broken(await client.history(fork.id)) == []
    assert [(each.step, each.epoch) for each in found] == [(2, 0), (4, 1), (6, 1)]
    assert other_weights(found, undisturbed) == []
