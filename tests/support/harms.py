"""What a soak does to a running stack, as a table: a fault by its name, its row of the matrix, how soon a step follows.

Each returns when its cause is gone: the process is dead or goes on again, the network is well, the file is as it will
be. What died is started by whoever keeps it, as anywhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import psutil
from cluster import JOB_LEASE_S, Cluster, ended, frozen, kill, lapse
from fault_proxy import FaultProxy
from stage import Stage

from tutelage.queue import Job, open_queue

HOUR_S = 3600
STEP_S, RESTART_S = 20.0, 90.0  # a step with its questions; a lease that runs out and a process that imports torch
LIAR_CALLS = 40


@dataclass(frozen=True)
class Harm:
    """row: of the matrix; within_s: until the next step counts, or the run ends, after the cause is gone"""

    row: int
    within_s: float
    do: Callable[[Stage, Random], Awaitable[None]]


async def teacher_killed(stage: Stage, random: Random) -> None:
    kill(random.choice(stage.cluster.teachers))


async def teacher_frozen(stage: Stage, random: Random) -> None:
    async with frozen(random.choice(stage.cluster.teachers)):
        await lapse(random.uniform(1, 4) * JOB_LEASE_S)


async def teacher_lies(stage: Stage, random: Random) -> None:
    """A third one takes work and answers with what is no score, until it has said its lies."""
    lies = random.choices(["nan", "positive", "short", "error"], k=LIAR_CALLS)
    liar = stage.cluster.teacher("toy", "--max-deliveries", "10", faults=["none"] * 5 + lies, latency_s=0.05)
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


async def queue_killed(stage: Stage, random: Random) -> None:
    await _queue_again(stage.cluster)


async def queue_file_cut(stage: Stage, random: Random) -> None:
    await _queue_again(stage.cluster, cut_bytes=random.randrange(200, 3000))


async def queue_file_lost(stage: Stage, random: Random) -> None:
    await _queue_again(stage.cluster, cut_bytes=None)


async def _queue_again(cluster: Cluster, cut_bytes: int | None = 0) -> None:
    """Kill the server and start it on its file, without the last bytes of it or without it."""
    kill(cluster.redis)
    await ended(cluster.redis)
    for path in (cluster.folder / "queue" / "appendonlydir").iterdir():
        if cut_bytes is None:
            path.unlink()
        elif path.name.endswith("incr.aof"):
            path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size - cut_bytes)])
    await cluster.redis.start()


async def queue_frozen(stage: Stage, random: Random) -> None:
    async with frozen(stage.cluster.redis):
        await lapse(random.uniform(3, 8))


async def queue_flushed(stage: Stage, random: Random) -> None:
    stage.cluster.raw.flushall()


async def queue_full(stage: Stage, random: Random) -> None:
    stage.cluster.raw.config_set("maxmemory", "1mb")
    try:
        await lapse(random.uniform(2, 6))
    finally:
        stage.cluster.raw.config_set("maxmemory", "0")


async def queue_cut_off(stage: Stage, random: Random) -> None:
    way = random.choice([stage.cluster.redis_way, stage.cluster.teachers_way])
    await _cut(way, random.choice(["down", "reset", "black_hole"]), random.uniform(1, 5))


async def replies_lost(stage: Stage, random: Random) -> None:
    way = random.choice([stage.cluster.redis_way, stage.cluster.teachers_way])
    await _cut(way, "drop_replies", random.uniform(1, 4))


async def coordinator_cut_off(stage: Stage, random: Random) -> None:
    """For longer or shorter than a lease, in one direction or both."""
    fault = random.choice(["down", "reset", "black_hole", "drop_replies"])
    await _cut(stage.cluster.coordinator_way, fault, random.uniform(0.2, 1.3) * stage.cluster.lease_s)


async def bad_network(stage: Stage, random: Random) -> None:
    faults: dict[str, Any] = random.choice([{"latency_s": 0.05}, {"slice_bytes": 50}, {"limit_bytes": 20_000}])
    for way in (stage.cluster.redis_way, stage.cluster.teachers_way):
        await way.set(**faults)
    await lapse(random.uniform(2, 6))
    for way in (stage.cluster.redis_way, stage.cluster.teachers_way):
        await way.set()


async def _cut(way: FaultProxy, fault: str, seconds: float) -> None:
    await way.set(**{fault: True})
    await lapse(seconds)
    await way.set()


async def trainer_killed(stage: Stage, random: Random) -> None:
    _, trainer = await stage.playing()
    trainer.kill()


async def trainers_machine_lost(stage: Stage, random: Random) -> None:
    """The trainer and who waits for it: nobody reports the end."""
    agent, trainer = await stage.playing()
    kill(agent)
    with suppress(psutil.NoSuchProcess):
        trainer.kill()


async def trainer_frozen(stage: Stage, random: Random) -> None:
    _, trainer = await stage.playing()
    trainer.suspend()
    await lapse(random.uniform(0.2, 1.3) * stage.cluster.lease_s)
    with suppress(psutil.NoSuchProcess):
        trainer.resume()


async def trainer_told_to_go(stage: Stage, random: Random) -> None:
    agent, _ = await stage.playing()
    os.kill(agent.pid, signal.SIGTERM)


async def checkpoint_rots(stage: Stage, random: Random) -> None:
    """A byte of the newest one flips, and the trainer dies: the one before it is gone on from."""
    async with asyncio.timeout(STEP_S):
        while len(found := stage.checkpoints()) < 2:
            await asyncio.sleep(0.1)
    path = random.choice(sorted(found[-1].rglob("*.safetensors")))
    _, trainer = await stage.playing()
    trainer.suspend()
    body = bytearray(path.read_bytes())
    body[random.randrange(len(body))] ^= 1
    path.write_bytes(body)
    trainer.kill()


async def coordinator_killed(stage: Stage, random: Random) -> None:
    kill(stage.cluster.coordinator)


async def coordinator_frozen(stage: Stage, random: Random) -> None:
    async with frozen(stage.cluster.coordinator):
        await lapse(random.uniform(0.2, 1.3) * stage.cluster.lease_s)


async def two_coordinators(stage: Stage, random: Random) -> None:
    other = stage.cluster.second_coordinator()
    other.env = stage.cluster.coordinator.env  # one machine has one clock
    try:
        await other.start()
        await lapse(random.uniform(2, 5))
    finally:
        await other.stop(grace_s=5)


async def database_locked(stage: Stage, random: Random) -> None:
    locking = sqlite3.connect(stage.cluster.folder / "coordinator" / "coordinator.db", isolation_level=None)
    locking.execute("BEGIN IMMEDIATE")
    await lapse(random.uniform(1, 5))
    locking.close()


async def readers_do_not_read(stage: Stage, random: Random) -> None:
    request = f"GET /v1/runs/{stage.run_id}/events HTTP/1.1\r\nHost: c\r\nAccept: text/event-stream\r\n\r\n".encode()
    port = stage.cluster.coordinator_port
    readers = [await asyncio.open_connection("127.0.0.1", port, limit=1) for _ in range(100)]
    for _, writer in readers:
        writer.write(request)
    await lapse(random.uniform(2, 5))
    for _, writer in readers:
        writer.transport.abort()


async def answers_again(stage: Stage, random: Random) -> None:
    """All replies so far are announced again, the last first."""
    stream = f"tutelage:replies:{stage.run_id}"
    replies: Any = stage.cluster.raw.xrange(stream)
    for _, fields in reversed(replies[-200:]):
        stage.cluster.raw.xadd(stream, fields)


async def queues_clock_set(stage: Stage, random: Random) -> None:
    stage.queue_clock.by(random.choice([HOUR_S, 0, -HOUR_S]))


async def coordinators_clock_set(stage: Stage, random: Random) -> None:
    stage.coordinator_clock.by(random.choice([HOUR_S, 0, -HOUR_S]))


HARMS: dict[str, Harm] = {
    "a teacher is killed": Harm(1, STEP_S, teacher_killed),
    "a teacher freezes": Harm(2, STEP_S, teacher_frozen),
    "a teacher lies": Harm(3, STEP_S, teacher_lies),
    "a poisoned job": Harm(4, STEP_S, poison),
    "all teachers freeze": Harm(6, STEP_S, no_teacher),
    "all teachers are killed": Harm(6, RESTART_S, teachers_killed),
    "the queue is killed": Harm(7, STEP_S, queue_killed),
    "the queue freezes": Harm(8, STEP_S, queue_frozen),
    "the queue is cut off": Harm(8, STEP_S, queue_cut_off),
    "the network is bad": Harm(8, STEP_S, bad_network),
    "replies of the queue are lost": Harm(9, STEP_S, replies_lost),
    "the queue is full": Harm(10, STEP_S, queue_full),
    "the queue is flushed": Harm(11, STEP_S, queue_flushed),
    "the queue's file is cut": Harm(11, STEP_S, queue_file_cut),
    "the queue's file is lost": Harm(11, STEP_S, queue_file_lost),
    "the trainer is killed": Harm(13, RESTART_S, trainer_killed),
    "the trainer's machine is lost": Harm(13, RESTART_S, trainers_machine_lost),
    "a checkpoint rots": Harm(16, RESTART_S, checkpoint_rots),
    "the trainer freezes": Harm(17, RESTART_S, trainer_frozen),
    "the coordinator is killed": Harm(20, RESTART_S, coordinator_killed),
    "the coordinator freezes": Harm(20, RESTART_S, coordinator_frozen),
    "two coordinators": Harm(21, STEP_S, two_coordinators),
    "answers come again": Harm(22, STEP_S, answers_again),
    "the coordinator is cut off": Harm(23, RESTART_S, coordinator_cut_off),
    "the queue's clock is set": Harm(24, STEP_S, queues_clock_set),
    "the coordinator's clock is set": Harm(24, STEP_S, coordinators_clock_set),
    "a teacher is told to go": Harm(25, STEP_S, teacher_told_to_go),
    "the trainer is told to go": Harm(25, RESTART_S, trainer_told_to_go),
    "readers do not read": Harm(26, STEP_S, readers_do_not_read),
    "the database is locked": Harm(30, STEP_S, database_locked),
}
