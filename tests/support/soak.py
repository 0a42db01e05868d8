"""Faults one after another, drawn by a seed, on a stack that trains all the while; what came of each is measured.

Of each round of the schedule every class of fault is drawn once, in an order of its own. After a fault the next step
must count within the time that its class states. Runs follow one another, with and without `max_lag`; each must succeed
and its record must hold every invariant, as must that of a run beside it. No fault begins in the last steps of a run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from harms import HARMS
from needs import lacking
from stage import Stage
from watched import MEMORY_MIB, Watched

from tutelage_client.history import History, out_of_bounds

log = logging.getLogger(__name__)
MODES: dict[str, dict[str, Any]] = {
    "max_lag 0": {},
    "max_lag 2": {"rollout": {"max_lag": 2}, "stabilizers": [{"kind": "ratio_clip"}]},
}
BESIDE = "beside"
STEPS, LAST_STEPS, SAVED_EVERY = 120, 20, 5
GIVE_UP = 4.0  # times the stated time
SAMPLED_S = 1.0


@dataclass(frozen=True)
class Suffered:
    """One fault. run: the one that suffered; mode: of MODES, or BESIDE

    lasted_s: until its cause was gone; progress_s: from then until a step counted
    """

    fault: str
    row: int
    run: str
    mode: str
    at_s: float
    lasted_s: float
    progress_s: float
    within_s: float


@dataclass(frozen=True)
class LeftOut:
    """A class of fault that this machine, or who plays the soak on it, cannot do."""

    fault: str
    row: int
    why: str


def left_out(user: int) -> list[LeftOut]:
    """What somebody with this number leaves out on this machine."""
    found = [(name, harm.row, lacking(need, user)) for name, harm in HARMS.items() for need in harm.needs]
    return [LeftOut(name, row, why) for name, row, why in found if why is not None]


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
        self.watched = Watched()
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
        run_id = stage.run_id = await stage.cluster.submit(**planned, **MODES[mode])
        await self._steps(run_id, SAVED_EVERY, 120)
        while not self.is_over and await self._left() > min(LAST_STEPS, steps / 4):
            await self._suffer(mode)
            await self._steps(run_id, SAVED_EVERY + self.random.randrange(SAVED_EVERY), 120)
        found = await self._ended(run_id)
        epochs = {row["epoch"] for row in found.metrics}
        told = {"run": run_id, "mode": mode, "steps": found.run.step, "attempts": found.run.epoch}
        self.runs.append(told | {"counted_attempts": len(epochs), "seconds": round(self.age_s - began_s, 1)})

    async def _suffer(self, mode: str) -> None:
        name, random = next(self.coming)
        harm, at_s = HARMS[name], self.age_s
        log.info("soak: %s", name)
        beside = await harm.do(self.stage, random)
        run_id, gone_s = beside or self.stage.run_id, self.age_s
        progress_s = await self._steps(run_id, 1, harm.within_s * GIVE_UP)
        times = round(at_s, 1), round(gone_s - at_s, 1), round(progress_s, 2), harm.within_s
        self.suffered.append(Suffered(name, harm.row, run_id, BESIDE if beside else mode, *times))
        if beside:
            await self._ended(beside)

    async def _ended(self, run_id: str) -> History:
        """The record of a run, once it succeeded; no text that it learned from was older than its spec lets it."""
        await self.stage.cluster.until(run_id, lambda run: run.status.final, within_s=300)
        found = await self.stage.cluster.sound(run_id)
        lags = [row.get("lag_max", 0) for row in found.metrics]
        assert out_of_bounds(f"the age of text in {run_id}", lags, found.run.spec["rollout"]["max_lag"]) == []
        return found

    async def _left(self) -> int:
        run = await self.stage.cluster.until(self.stage.run_id, lambda run: True)
        return 0 if run.status.final else run.steps - run.step

    async def _steps(self, run_id: str, wanted: int, within_s: float) -> float:
        """Seconds until so many more steps counted or the run ended."""
        began_s, before, counted = time.monotonic(), None, 0
        async with asyncio.timeout(within_s):
            while True:
                run = await self.stage.run(run_id)
                if run is not None:
                    counted += max(0, run.step - before) if before is not None else 0
                    before = run.step
                    if counted >= wanted or run.status.final:
                        return time.monotonic() - began_s
                await asyncio.sleep(0.1)

    async def _look(self) -> None:
        """Note the memory of every process, again and again."""
        while True:
            self.watched.look(self.stage.processes(), self.age_s)
            await asyncio.sleep(SAMPLED_S)

    def broken(self) -> list[str]:
        """Every fault after which a step came too late, and every process that took too much memory."""
        late = [
            f"I6: after {each.fault!r} at {each.at_s} s the next step took {each.progress_s} s, not {each.within_s}"
            for each in self.suffered
            if each.progress_s > each.within_s
        ]
        return late + list(self.watched.broken())

    def result(self, left_out: Sequence[LeftOut]) -> dict[str, Any]:
        """All of it as JSON."""
        told = {"seed": self.seed, "seconds": round(self.age_s, 1), "cores": os.cpu_count()}
        return told | {
            "load": [round(each, 1) for each in os.getloadavg()],
            "left_out": [asdict(each) for each in left_out],
            "faults": [asdict(each) for each in self.suffered],
            "runs": self.runs,
            "memory": [self.watched.told(kind) for kind in MEMORY_MIB],
            "broken": self.broken(),
        }
