"""Faults one after another, drawn by a seed, on a stack that trains all the while; what came of each is measured.

Of each round of the schedule every class of fault is drawn once, in an order of its own. After a fault the next step
must count within the time that its class states. Runs follow one another, with and without `max_lag`; each must succeed
and its record must hold every invariant. No fault begins in the last steps of a run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
from cluster import Cluster
from harms import HARMS
from moved_clock import MovedClock
from stage import Stage

from tutelage_client.history import out_of_bounds

log = logging.getLogger(__name__)
MODES: dict[str, dict[str, Any]] = {
    "max_lag 0": {},
    "max_lag 2": {"rollout": {"max_lag": 2}, "stabilizers": [{"kind": "ratio_clip"}]},
}
STEPS, LAST_STEPS, SAVED_EVERY = 120, 20, 5
LEASE_S = 20.0  # of a run: a machine under load takes long to start a trainer
GIVE_UP = 4.0  # times the stated time
SAMPLED_S, WARM_S, LONG_S = 1.0, 20.0, 45.0
MEMORY_MIB: dict[str, tuple[float, float]] = {  # by kind of process, at most: growth of one that is warm, and in all
    "queue": (16, 64),
    "coordinator": (32, 400),
    "teacher": (32, 900),
    "waiting trainer": (16, 900),
    "trainer": (64, 1200),
}


@dataclass(frozen=True)
class Suffered:
    """One fault. lasted_s: until its cause was gone; progress_s: from then until a step counted"""

    fault: str
    row: int
    run: str
    mode: str
    at_s: float
    lasted_s: float
    progress_s: float
    within_s: float


@dataclass
class Memory:
    """One process from its first look to its last."""

    name: str
    seen_s: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)

    def note(self, at_s: float, mib: float) -> None:
        self.seen_s.append(at_s)
        self.mib.append(mib)

    @property
    def lived_s(self) -> float:
        return self.seen_s[-1] - self.seen_s[0]

    @property
    def kind(self) -> str:
        return self.name.rstrip(" 0123456789")

    @property
    def warm_mib(self) -> float:
        """When it had begun to work; the last look at one that lived shorter."""
        warm = (mib for s, mib in zip(self.seen_s, self.mib, strict=True) if s - self.seen_s[0] >= WARM_S)
        return next(warm, self.mib[-1])


@asynccontextmanager
async def staged(folder: Path) -> AsyncGenerator[Stage]:
    """The processes of a soak, each kept running; the queue's server is started again by who kills it."""
    cluster = Cluster(folder, lease_s=LEASE_S)
    clocks = [MovedClock(_folder(folder, name)) for name in ("clock-queue", "clock-coordinator")]
    for child, clock in zip((cluster.redis, cluster.coordinator), clocks, strict=True):
        child.env = cluster.env | clock.env
    stage = Stage(cluster, [], clocks[0], clocks[1])
    keeping: list[asyncio.Task[None]] = []
    try:
        await cluster.start()
        stage.agents += [cluster.agent("one"), cluster.agent("two")]
        await asyncio.gather(*(agent.start() for agent in stage.agents))
        kept = (cluster.coordinator, *cluster.teachers, *stage.agents)
        keeping += [asyncio.create_task(child.keep(lambda: None)) for child in kept]
        yield stage
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        await asyncio.gather(*(agent.stop(grace_s=10) for agent in stage.agents))
        await cluster.stop()


def _folder(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def schedule(seed: int, classes: Sequence[str]) -> Iterator[tuple[str, Random]]:
    """Faults without end, each with its own source of chance; nothing but the seed decides which and how."""
    random = Random(seed)
    while True:
        for name in random.sample(list(classes), len(classes)):
            yield name, Random(random.getrandbits(64))


class Soak:
    """Plays `faults` faults or more, for `seconds` or longer."""

    def __init__(self, stage: Stage, seed: int, *, seconds: float, faults: int, classes: Sequence[str]) -> None:
        self.stage, self.seed, self.seconds, self.faults = stage, seed, seconds, faults
        self.coming = schedule(seed, classes)
        self.random = Random(seed)
        self.suffered: list[Suffered] = []
        self.runs: list[dict[str, Any]] = []
        self.memory: dict[int, Memory] = {}
        self.began_s = time.monotonic()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.began_s

    @property
    def is_over(self) -> bool:
        return self.age_s >= self.seconds and len(self.suffered) >= self.faults

    async def play(self, steps: int = STEPS) -> None:
        """Runs with faults, one after another; then everything is well and the last one ends."""
        looking = asyncio.create_task(self._look())
        modes = list(MODES)
        try:
            while not self.is_over:
                await self._play_run(modes[len(self.runs) % len(modes)], steps)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _play_run(self, mode: str, steps: int) -> None:
        stage, began_s = self.stage, self.age_s
        planned = {"optim": {"steps": steps}, "checkpoint": {"every": SAVED_EVERY}}
        stage.run_id = await stage.cluster.submit(**planned, **MODES[mode])
        await self._steps(SAVED_EVERY, 120)
        while not self.is_over and await self._left() > min(LAST_STEPS, steps / 4):
            await self._suffer(mode)
            await self._steps(SAVED_EVERY + self.random.randrange(SAVED_EVERY), 120)
        await stage.cluster.until(stage.run_id, lambda run: run.status.final, within_s=300)
        found = await stage.cluster.sound(stage.run_id)
        epochs = {row["epoch"] for row in found.metrics}
        told = {"run": stage.run_id, "mode": mode, "steps": found.run.step, "attempts": found.run.epoch}
        self.runs.append(told | {"counted_attempts": len(epochs), "seconds": round(self.age_s - began_s, 1)})

    async def _suffer(self, mode: str) -> None:
        name, random = next(self.coming)
        harm, at_s = HARMS[name], self.age_s
        log.info("soak: %s", name)
        await harm.do(self.stage, random)
        gone_s = self.age_s
        progress_s = await self._steps(1, harm.within_s * GIVE_UP)
        lasted_s = round(gone_s - at_s, 1)
        self.suffered.append(
            Suffered(
                name, harm.row, self.stage.run_id, mode, round(at_s, 1), lasted_s, round(progress_s, 2), harm.within_s
            )
        )

    async def _left(self) -> int:
        run = await self.stage.cluster.until(self.stage.run_id, lambda run: True)
        return 0 if run.status.final else run.steps - run.step

    async def _steps(self, wanted: int, within_s: float) -> float:
        """Seconds until so many more steps counted or the run ended."""
        began_s, before, counted = time.monotonic(), None, 0
        async with asyncio.timeout(within_s):
            while True:
                run = await self.stage.run()
                if run is not None:
                    counted += max(0, run.step - before) if before is not None else 0
                    before = run.step
                    if counted >= wanted or run.status.final:
                        return time.monotonic() - began_s
                await asyncio.sleep(0.1)

    async def _look(self) -> None:
        """Note the memory of every process, again and again."""
        while True:
            for name, process in self.stage.processes():
                try:
                    mib = process.memory_info().rss / 2**20
                except psutil.Error:
                    continue
                self.memory.setdefault(process.pid, Memory(name)).note(self.age_s, mib)
            await asyncio.sleep(SAMPLED_S)

    def broken(self) -> list[str]:
        """Every fault after which a step came too late, and every process that took too much memory."""
        late = [
            f"I6: after {each.fault!r} at {each.at_s} s the next step took {each.progress_s} s, not {each.within_s}"
            for each in self.suffered
            if each.progress_s > each.within_s
        ]
        for each in self.memory.values():
            growth, most = MEMORY_MIB[each.kind]
            late += out_of_bounds(f"the memory of {each.name} in MiB", each.mib, most)
            if each.lived_s >= LONG_S:
                late += out_of_bounds(f"the growth of {each.name} in MiB", [each.mib[-1] - each.warm_mib], growth)
        return late

    def result(self) -> dict[str, Any]:
        """All of it as JSON."""
        told = {"seed": self.seed, "seconds": round(self.age_s, 1), "cores": os.cpu_count()}
        return told | {
            "load": [round(each, 1) for each in os.getloadavg()],
            "faults": [asdict(each) for each in self.suffered],
            "runs": self.runs,
            "memory": [self._told(kind) for kind in MEMORY_MIB],
            "broken": self.broken(),
        }

    def _told(self, kind: str) -> dict[str, Any]:
        """Of the processes of one kind, the one that lived longest, and the largest growth of any that lived long."""
        every = [each for each in self.memory.values() if each.kind == kind]
        longest = max(every, key=lambda each: each.lived_s)
        grown = [each.mib[-1] - each.warm_mib for each in every if each.lived_s >= LONG_S]
        growth, most = MEMORY_MIB[kind]
        figures = {"start_mib": longest.warm_mib, "end_mib": longest.mib[-1], "growth_mib": max(grown, default=None)}
        rounded: dict[str, Any] = {name: None if mib is None else round(mib, 1) for name, mib in figures.items()}
        peak = round(max(max(each.mib) for each in every), 1)
        seen = {round(at_s / 60): round(mib, 1) for at_s, mib in zip(longest.seen_s, longest.mib, strict=True)}
        rounded |= {"by_minute_mib": list(seen.values())}
        told = {"process": kind, "processes": len(every), "lived_s": round(longest.lived_s), **rounded}
        return told | {"most_mib": peak, "growth_limit_mib": growth, "limit_mib": most}
