"""A trainer that dies, freezes, is told to go or finds no memory, and a disk that does not keep what it saves."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

import psutil
from cluster import kill, lapse
from rooted import filled
from stage import Stage

from harms.harm import RESTART_S, STEP_S

GREEDY = """
import sys
from pathlib import Path

Path("/proc/self/oom_score_adj").write_text("500")  # before those that wait for runs
taken = b"1" * int(sys.argv[1])
"""


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


async def trainer_without_memory(stage: Stage, random: Random) -> None:
    """Somebody beside it takes all the memory of their control group; of both the kernel kills the trainer first."""
    assert stage.group is not None
    newest = await stage.newest_event()
    _, trainer = await stage.playing()
    (Path("/proc") / str(trainer.pid) / "oom_score_adj").write_text("1000")
    used = stage.group.used_bytes
    stage.group.limit_memory(used)
    greedy = await asyncio.create_subprocess_exec(*stage.group.before, sys.executable, "-c", GREEDY, str(used))
    try:
        await stage.told("recovering: out_of_memory", newest, RESTART_S)
    finally:
        stage.group.limit_memory(None)
        with suppress(ProcessLookupError):
            greedy.kill()
        await greedy.wait()


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


async def checkpoints_disk_full(stage: Stage, random: Random) -> None:
    newest = await stage.newest_event()
    with filled(stage.cluster.folder / "coordinator" / "artefacts"):
        await stage.told("No space left on device", newest, STEP_S)
        await lapse(random.uniform(1, 5))


async def fsync_fails(stage: Stage, random: Random) -> None:
    """The next one of each of the trainer's threads, until the first has failed."""
    newest = await stage.newest_event()
    _, trainer = await stage.playing()
    calls = stage.cluster.folder / f"fsync-{trainer.pid}-{newest}"
    failing = ["-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1"]
    strace = await asyncio.create_subprocess_exec("strace", "-f", "-qq", "-o", calls, *failing, "-p", str(trainer.pid))
    try:
        await stage.told("Input/output error", newest, STEP_S)
    finally:
        strace.terminate()  # it lets go of the trainer
        await strace.wait()
    assert "(INJECTED)" in calls.read_text()
