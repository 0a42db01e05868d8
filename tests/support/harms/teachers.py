"""Teachers that die, freeze, lie, meet a poisoned job, or are refused work by whoever hosts their model."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from random import Random

from cluster import JOB_LEASE_S, PROBE, frozen, kill, lapse
from hosted import RETRY_AFTER_S
from stage import Stage

from harms.harm import STEP_S
from tutelage.queue import Job, open_queue

LIAR_CALLS = 40
OPEN_QUESTIONS = 3  # to the hosted teacher, at most: one of each step that is under way


async def teacher_killed(stage: Stage, random: Random) -> None:
    kill(random.choice(stage.cluster.teachers))


async def teacher_frozen(stage: Stage, random: Random) -> None:
    async with frozen(random.choice(stage.cluster.teachers)):
        await lapse(random.uniform(1, 4) * JOB_LEASE_S)


async def teacher_lies(stage: Stage, random: Random) -> None:
    """A third one takes work and answers with what is no score, until it has said its lies."""
    lies = random.choices(["nan", "positive", "short", "error"], k=LIAR_CALLS)
    liar = stage.cluster.teacher("toy", "--max-deliveries", "10", faults=[*PROBE, *lies], latency_s=0.05)
    try:
        await liar.start()
        await lapse(3)
    finally:
        await liar.stop(grace_s=5)


async def poison(stage: Stage, random: Random) -> None:
    """A job that no teacher can answer, among those of the run."""
    queue = open_queue(f"redis://127.0.0.1:{stage.cluster.redis_port}")
    name = f"poison-{random.getrandbits(64):x}"
    try:
        await queue.put([Job(name, "toy", "poison", "poison", 1, random.randbytes(100))])
        async with asyncio.timeout(STEP_S):
            while (answer := await queue.fetch(name)) is None:
                await asyncio.sleep(0.1)
        assert answer.payload is None, "it is a dead letter"
    finally:
        await queue.close()


async def teacher_rate_limited(stage: Stage, random: Random) -> None:
    """The host of one of the run's teachers refuses every call: each waits as long as it was told to."""
    assert stage.hosted is not None
    host, before, began_s = stage.hosted.host, stage.hosted.host.refused, time.monotonic()
    host.refusing_with = random.choice([429, 503])
    try:
        async with asyncio.timeout(STEP_S):
            while host.refused == before:
                await asyncio.sleep(0.05)
        await lapse(random.uniform(2, 8))
    finally:
        host.refusing_with = None
    rounds = 1 + (time.monotonic() - began_s) / RETRY_AFTER_S
    assert host.refused - before <= OPEN_QUESTIONS * rounds, "it was asked again before its time"


async def no_teacher(stage: Stage, random: Random) -> None:
    for teacher in stage.cluster.teachers:
        os.kill(teacher.pid, signal.SIGSTOP)
    try:
        await lapse(random.uniform(3, 12))
    finally:
        for teacher in stage.cluster.teachers:
            os.kill(teacher.pid, signal.SIGCONT)


async def teachers_killed(stage: Stage, random: Random) -> None:
    for teacher in stage.cluster.teachers:
        kill(teacher)


async def teacher_told_to_go(stage: Stage, random: Random) -> None:
    os.kill(random.choice(stage.cluster.teachers).pid, signal.SIGTERM)
