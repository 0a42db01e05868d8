"""Teachers that die, freeze, lie, or are all away: the run goes on, and learns from every rollout once."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from cluster import JOB_LEASE_S, PROBE, Cluster, frozen, kill, lapse, restart

from tutelage.queue import Answer, Job, QueueLimits, open_queue
from tutelage.trainer.exits import ExitCode
from tutelage_client.history import no_progress
from tutelage_client.wire import Completion, ScoreGroup, ScoreRequest, Signal, encode_request

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_teacher_killed_with_a_job_in_hand_loses_nothing(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    training = asyncio.create_task(cluster.train(run_id))
    victim = await cluster.holder()
    kill(victim)
    assert await training == ExitCode.DONE
    await restart(victim)
    await cluster.sound(run_id)


async def test_a_frozen_teacher_is_replaced_and_its_late_answer_has_no_effect(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    training = asyncio.create_task(cluster.train(run_id))
    async with frozen(await cluster.holder()):
        assert await training == ExitCode.DONE
    await lapse(JOB_LEASE_S)
    await cluster.sound(run_id)


async def test_without_any_teacher_the_run_waits_says_so_and_goes_on_by_itself(cluster: Cluster) -> None:
    run_id = await cluster.submit(optim={"steps": 10})
    training = asyncio.create_task(cluster.train(run_id))
    await cluster.until(run_id, lambda run: run.step >= 1)
    for teacher in cluster.teachers:
        kill(teacher)
    waiting = await cluster.until(run_id, lambda run: run.conditions.get("teacher_available") is False)
    assert waiting.status == "running"
    back_s = waiting.updated_at.timestamp()
    await asyncio.gather(*map(restart, cluster.teachers))
    assert await training == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert found.run.conditions["teacher_available"]
    assert no_progress(found.events, back_s, within_s=30) == []


async def test_a_job_that_kills_every_teacher_ends_in_the_dead_letters_and_the_others_flow(cluster: Cluster) -> None:
    fatal = 31
    teacher = cluster.teacher("mortal", "--max-deliveries", "2", fatal_id=fatal)
    await teacher.start()
    keeping = asyncio.create_task(teacher.keep(lambda: None))
    queue = open_queue(f"redis://127.0.0.1:{cluster.redis_port}", QueueLimits(lease_s=JOB_LEASE_S))
    try:
        names = ["before", "poison", "after"]
        await queue.put([_job(name, "mortal", fatal if name == "poison" else 2) for name in names])
        found: dict[str, Answer] = {}
        async with asyncio.timeout(60):
            while len(found) < len(names):
                answers, _ = await queue.answers("mortal-replies", after="0", wait_s=1.0)
                found = {answer.job_id: answer for answer in answers}
        assert [name for name in names if found[name].payload is None] == ["poison"]
        (letter,) = await queue.dead_letters("mortal")
        assert (letter.job_id, letter.attempts) == ("poison", 2)
        assert "let its lease run out" in letter.reason
    finally:
        keeping.cancel()
        await teacher.stop(grace_s=1)
        await queue.close()


def _job(name: str, teacher: str, token: int) -> Job:
    request = ScoreRequest(
        sequences=(
            ScoreGroup(
                prompt_ids=np.array([1], dtype=np.int32),
                completions=(Completion(token_ids=np.array([token], dtype=np.int32)),),
            ),
        ),
        signals=frozenset({Signal.SAMPLED}),
    )
    return Job(name, teacher, f"{teacher}-replies", "run", 2, encode_request(request))


@pytest.mark.parametrize("fault", ["nan", "positive", "short", "error"])
async def test_what_is_no_score_never_reaches_the_student(fault: str, cluster: Cluster) -> None:
    name = f"liar-{fault}"
    teacher = cluster.teacher(name, "--max-deliveries", "10", faults=[*PROBE, fault, fault, fault])
    await teacher.start()
    try:
        await cluster.registered(name)
        run_id = await cluster.submit(teachers=[{"name": name}], optim={"steps": 3})
        assert await cluster.train(run_id) == ExitCode.DONE
        found = await cluster.sound(run_id)
        assert not any(learned.left_out for learned in found.learned)
        assert all(row["loss"] is None or abs(row["loss"]) < 1e3 for row in found.metrics if "loss" in row)
    finally:
        await teacher.stop(grace_s=5)
