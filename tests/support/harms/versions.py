"""Two releases on one queue."""

from __future__ import annotations

import asyncio
from random import Random

import newer_teacher
import numpy as np
from cluster import JOB_LEASE_S, Cluster, lapse
from stage import Stage
from tiny_run import VOCABULARY

from harms.harm import STEP_S
from tutelage.queue import Job, QueueLimits, envelope, open_queue
from tutelage.queue.blobs import Blobs
from tutelage.queue.server import Server
from tutelage.standalone.children import Child
from tutelage_client.wire import Completion, ScoreGroup, ScoreRequest, Signal, decode_reply, encode_request


async def newer_version_asks(stage: Stage, random: Random) -> None:
    """Those of today leave its job to a newer teacher, which works beside them until it has answered."""
    name = f"newer-{random.getrandbits(64):x}"
    await put_newer(f"redis://127.0.0.1:{stage.cluster.redis_port}", question(name, random.randrange(1, VOCABULARY)))
    async with asyncio.timeout(STEP_S):
        while not any(_leaves(log.read_text(), name) for log in stage.cluster.folder.glob("teacher-*.log")):
            await asyncio.sleep(0.2)
    await lapse(random.uniform(0, 2) * JOB_LEASE_S)
    newer = release_to_come(stage.cluster)
    try:
        await newer.start()
        await _answered(stage, name)
    finally:
        await newer.stop(grace_s=5)


def release_to_come(cluster: Cluster) -> Child:
    """One more teacher "toy", of that release."""
    newer = cluster.teacher("toy", latency_s=0.05)
    newer.argv[1:3] = [newer_teacher.__file__]
    return newer


def question(name: str, token: int) -> Job:
    asked = Completion(token_ids=np.array([token], dtype=np.int32))
    group = ScoreGroup(prompt_ids=np.array([1], dtype=np.int32), completions=(asked,))
    request = ScoreRequest(sequences=(group,), signals=frozenset({Signal.SAMPLED}))
    return Job(name, "toy", name, name, 2, encode_request(request))


async def put_newer(url: str, job: Job) -> None:
    """Put it as a trainer of the newer release would."""
    server = Server(url, limits := QueueLimits())
    try:
        (reference,) = await Blobs(server, limits).store([newer_teacher.newer(envelope.pack(job))])
        named = job.id, job.queue, job.run_id, job.reply_to, job.tokens, len(job.payload), reference
        assert await server.op("put", *named) == [b"added"]
    finally:
        await server.close()


def _leaves(log: str, name: str) -> bool:
    return any("a job is left alone" in line and name in line for line in log.splitlines())


async def _answered(stage: Stage, name: str) -> None:
    queue = open_queue(f"redis://127.0.0.1:{stage.cluster.redis_port}")
    try:
        async with asyncio.timeout(4 * STEP_S):  # the others take it in turn, each for the length of a lease
            while (answer := await queue.fetch(name)) is None:
                await asyncio.sleep(0.1)
    finally:
        await queue.close()
    assert answer.payload is not None, answer.reason
    decode_reply(answer.payload)
