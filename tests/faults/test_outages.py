"""A teacher is killed for longer than the run waits: another one stands in, its lines are left out, or the run ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from cluster import WAIT_S, Cluster, frozen, kill, restart
from tiny_run import PROMPTS, ROLLOUTS

from tutelage.standalone.children import Child
from tutelage.trainer.exits import ExitCode
from tutelage_client import history

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATIENCE_S = 2.0
Row = Mapping[str, Any]


@pytest_asyncio.fixture(loop_scope="session")
async def pair(cluster: Cluster) -> AsyncGenerator[tuple[Child, Child]]:
    """Two teachers, `first` and `second`, that never agree."""
    names = ("first", "second")
    teachers = [cluster.teacher(name, seed=seed, latency_s=0.05) for seed, name in enumerate(names)]
    await asyncio.gather(*(teacher.start() for teacher in teachers))
    await asyncio.gather(*map(cluster.registered, names))
    yield teachers[0], teachers[1]
    await asyncio.gather(*(teacher.stop(grace_s=5) for teacher in teachers))


async def row(cluster: Cluster, run_id: str, wanted: Callable[[Row], Any]) -> Row:
    """The newest row of metrics, once it is one that is wanted."""
    async with asyncio.timeout(WAIT_S), cluster.client() as client:
        while True:
            rows = (await client.history(run_id)).metrics
            if rows and wanted(rows[-1]):
                return rows[-1]
            await asyncio.sleep(0.1)


def said(found: history.History, words: str) -> list[str]:
    return [event.message for event in found.events if event.type == "teacher" and words in event.message]


async def test_another_one_stands_in_for_a_killed_teacher_until_it_is_back(
    cluster: Cluster, pair: tuple[Child, Child]
) -> None:
    """Over the full vocabulary, so each is learned from by its own head. The second freezes as the first comes back."""
    first, second = pair
    ref = {"name": "first", "on_loss": "failover", "failover_to": "second", "patience_s": PATIENCE_S}
    objective = {"kind": "divergence", "support": {"kind": "full"}}
    run_id = await cluster.submit(teachers=[ref], objective=objective, optim={"steps": 60})
    training = asyncio.create_task(cluster.train(run_id))
    await row(cluster, run_id, lambda row: row["step"] >= 1)
    kill(first)
    await row(cluster, run_id, lambda row: row.get("failed_over") == ROLLOUTS)
    async with frozen(second):
        await restart(first)
        assert await training == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert said(found, "'second', which is another model, fake, is asked in its place")
    assert said(found, "teacher 'first' answers again")
    last = found.metrics[-1]
    assert (last["failed_over"], last["rollouts/trained"]) == (0, 60 * ROLLOUTS)
    assert min(last["teacher_tokens/first"], last["teacher_tokens/second"]) > 0
    markers = [{key.partition("@")[2] for key in learned.trained} for learned in found.learned]
    assert markers[0] == markers[-1] == {"first"}
    assert {"second"} in markers


async def test_lines_of_a_killed_teacher_are_left_out_until_it_is_back(
    cluster: Cluster, pair: tuple[Child, Child]
) -> None:
    """The teachers of the other lines freeze while it comes back, so that the run does not end before."""
    first, _ = pair
    data = cluster.folder / "tagged.jsonl"
    lines = [{"prompt": prompt, "tag": tag} for prompt, tag in zip(PROMPTS, ("a", "b", "a", "b"), strict=True)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    teachers = [
        {"name": "first", "tags": ["a"], "on_loss": "skip", "patience_s": PATIENCE_S},
        {"name": "toy", "tags": ["b"]},
    ]
    run_id = await cluster.submit(teachers=teachers, data={"train": str(data)}, optim={"steps": 60})
    training = asyncio.create_task(cluster.train(run_id))
    await row(cluster, run_id, lambda row: row["step"] >= 1)
    kill(first)
    await row(cluster, run_id, lambda row: row.get("rollouts/skipped", 0) > 0)
    async with AsyncExitStack() as others:
        for teacher in cluster.teachers:
            await others.enter_async_context(frozen(teacher))
        await restart(first)
        await cluster.until(run_id, lambda run: run.conditions["teacher_available/first"])
    assert await training == ExitCode.DONE
    found = await cluster.sound(run_id)
    skipped = [key for learned in found.learned for key in learned.left_out]
    assert {key.partition("@")[2] for key in skipped} == {"first"}
    last = found.metrics[-1]
    assert last["rollouts/skipped"] == len(skipped)
    assert last["rollouts/trained"] == 60 * ROLLOUTS - len(skipped)
    assert len(found.learned[-1].trained) == ROLLOUTS, "once it is back its lines are learned from again"


async def test_a_spent_budget_for_outages_ends_the_run_with_all_that_it_learned_kept(
    cluster: Cluster, pair: tuple[Child, Child]
) -> None:
    first, _ = pair
    ref = {"name": "first", "patience_s": PATIENCE_S, "outage_budget_s": 3 * PATIENCE_S}
    run_id = await cluster.submit(teachers=[ref], optim={"steps": 60}, checkpoint={"every": 1000})
    training = asyncio.create_task(cluster.train(run_id))
    await row(cluster, run_id, lambda row: row["step"] >= 1)
    kill(first)
    assert await training == ExitCode.TEACHER_LOST
    found = await cluster.history(run_id)
    assert found.run.error is not None
    assert (found.run.status, found.run.error.code, found.run.error.category) == ("failed", "teacher_outage", "teacher")
    assert said(found, "the run waits for it")
    assert not found.run.conditions["teacher_available"]
    assert [saved.step for saved in found.checkpoints] == [found.metrics[-1]["step"]] == [found.run.error.step]
    assert history.broken(found) == []
