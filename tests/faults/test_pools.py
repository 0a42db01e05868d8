"""Several teachers over one queue: they come and go under load, in two releases, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from cluster import Cluster, ended, restart
from harms.versions import put_newer, question, release_to_come
from single import put_one

from tutelage.queue import Answer, Queue, open_queue
from tutelage.trainer.exits import ExitCode

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_pool_grows_and_shrinks_under_load_and_every_rollout_is_learned_from_once(cluster: Cluster) -> None:
    run_id = await cluster.submit(optim={"steps": 12})
    training = asyncio.create_task(cluster.train(run_id))
    await cluster.until(run_id, lambda run: run.step >= 1)
    more = cluster.teacher("toy", latency_s=0.05)
    await more.start()
    leaving = await cluster.holder()
    try:
        os.kill(leaving.pid, signal.SIGTERM)
        assert await ended(leaving) == 0, "it was told to go while it held a job"
        assert await training == ExitCode.DONE
    finally:
        await more.stop(grace_s=5)
        await restart(leaving)
    found = await cluster.sound(run_id)
    assert found.run.step == 12
    assert not any(learned.left_out for learned in found.learned)
    queue = open_queue(f"redis://127.0.0.1:{cluster.redis_port}")
    assert await queue.dead_letters("toy") == []
    await queue.close()


async def test_jobs_of_two_releases_are_answered_side_by_side_while_one_of_the_older_teachers_goes(
    cluster: Cluster,
) -> None:
    """Those of today leave what they cannot read to the newer one, which reads both."""
    url = f"redis://127.0.0.1:{cluster.redis_port}"
    newer = release_to_come(cluster)
    await newer.start()
    queue = open_queue(url)
    leaving = cluster.teachers[0]
    try:
        jobs = [question(f"of-{release}-{n}", n) for n in range(1, 7) for release in ("today", "tomorrow")]
        for job in jobs:
            if "tomorrow" in job.id:
                await put_newer(url, job)
            else:
                await put_one(queue, job)
        os.kill(leaving.pid, signal.SIGTERM)
        answers = {job.id: await answered(queue, job.id) for job in jobs}
        assert await ended(leaving) == 0
    finally:
        await newer.stop(grace_s=5)
        await restart(leaving)
        await queue.close()
    assert all(answer.payload is not None for answer in answers.values())


async def answered(queue: Queue, job_id: str) -> Answer:
    async with asyncio.timeout(60):
        while (answer := await queue.fetch(job_id)) is None:
            await asyncio.sleep(0.02)
    return answer
