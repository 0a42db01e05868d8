"""What a soak plays on: the processes of `cluster`, kept running as `tutelage up` keeps its own, and two trainers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from cluster import WAIT_S, Cluster
from hosted import Hosted, hosted_teacher
from moved_clock import MovedClock
from needs import Need
from rooted import Group, small_disk

from tutelage.standalone.children import Child
from tutelage_client.wire import EventView, RunView

LEASE_S = 20.0  # of a run: a machine under load takes long to start a trainer
DISKS = {"queue": "96m", "coordinator/artefacts": "64m"}
GROUP = f"tutelage-soak-{os.getpid()}"


@dataclass(frozen=True)
class Attempt:
    """A process that executes a run, and who waits for it."""

    agent: Child
    process: psutil.Process
    run_id: str
    epoch: int


@dataclass
class Stage:
    """run_id: the main run, whose trainer is a child of one of `agents`

    group: of the agents and what they start; group, hosted: where they are needed
    """

    cluster: Cluster
    queue_clock: MovedClock
    coordinator_clock: MovedClock
    group: Group | None = None
    agents: list[Child] = field(default_factory=list)
    hosted: Hosted | None = None
    run_id: str = ""

    def attempts(self) -> Iterator[Attempt]:
        for agent in self.agents:
            with suppress(psutil.Error, AssertionError):
                for child in psutil.Process(agent.pid).children():
                    given = dict(flag.split("=", 1) for flag in child.cmdline() if "=" in flag)
                    if "--run" in given:
                        yield Attempt(agent, child, given["--run"], int(given["--epoch"]))

    async def playing(self) -> tuple[Child, psutil.Process]:
        """The process that executes the main run, once there is one, and who waits for it."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for attempt in self.attempts():
                    if attempt.run_id == self.run_id:
                        return attempt.agent, attempt.process
                await asyncio.sleep(0.05)

    def processes(self) -> Iterator[tuple[str, psutil.Process, bool]]:
        """Everything that lives now, by its name, and whether it is at work: a trainer is once it has learned."""
        cluster = self.cluster
        teachers = [*cluster.teachers, *([] if self.hosted is None else [self.hosted.teacher])]
        named = {"queue": cluster.redis, "coordinator": cluster.coordinator}
        named |= {f"teacher {i}": child for i, child in enumerate(teachers)}
        named |= {f"waiting trainer {i}": child for i, child in enumerate(self.agents)}
        for name, child in named.items():
            with suppress(psutil.Error, AssertionError):
                yield name, psutil.Process(child.pid), True
        for each in self.attempts():
            noted = self.artefacts(each.run_id) / "learned" / f"epoch-{each.epoch:05d}.jsonl"
            yield "trainer", each.process, noted.exists()

    async def run(self, run_id: str) -> RunView | None:
        """A run as the coordinator tells it; None where it does not answer."""
        with suppress(Exception):  # it is being broken
            async with asyncio.timeout(2), self.cluster.client() as client:
                return await client.run(run_id)
        return None

    async def events(self, after: int = 0) -> list[EventView]:
        """Of the main run, behind this number."""
        async with self.cluster.client() as client:
            found: list[EventView] = []
            while page := (await client.event_page(self.run_id, found[-1].id if found else after)).data:
                found += page
            return found

    async def newest_event(self) -> int:
        return (await self.events())[-1].id

    async def told(self, words: str, after: int, within_s: float) -> None:
        """Wait until an event of the main run behind this number says so."""
        async with asyncio.timeout(within_s):
            while not any(words in event.message for event in await self.events(after)):
                await asyncio.sleep(0.1)

    def checkpoints(self) -> list[Path]:
        """Of the main run, the oldest first."""
        return sorted(self.artefacts(self.run_id).rglob("step-*-e*"), key=lambda path: path.name)

    def artefacts(self, run_id: str) -> Path:
        return self.cluster.folder / "coordinator" / "artefacts" / run_id


@asynccontextmanager
async def staged(folder: Path, needs: Collection[Need] = ()) -> AsyncGenerator[Stage]:
    """The processes of a soak, each kept running; the queue's server is started again by who kills it."""
    async with AsyncExitStack() as stack:
        for name, size in DISKS.items() if Need.DISKS in needs else ():
            stack.enter_context(small_disk(folder / name, size))
        cluster = Cluster(folder, lease_s=LEASE_S)
        clocks = [MovedClock(_folder(folder, name)) for name in ("clock-queue", "clock-coordinator")]
        for child, clock in zip((cluster.redis, cluster.coordinator), clocks, strict=True):
            child.env = cluster.env | clock.env
        stage = Stage(cluster, *clocks, group=_group(stack) if Need.MEMORY in needs else None)
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        if Need.HOSTED in needs:
            stage.hosted = await stack.enter_async_context(hosted_teacher(cluster))
        await stack.enter_async_context(_waiting(stage))
        await stack.enter_async_context(_kept((cluster.coordinator, *cluster.teachers, *stage.agents)))
        yield stage


def _folder(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def _group(stack: AsyncExitStack) -> Group:
    group = Group("memory", GROUP)
    stack.callback(group.remove)
    return group


@asynccontextmanager
async def _waiting(stage: Stage) -> AsyncGenerator[None]:
    """Two trainers that wait for runs."""
    stage.agents += [stage.cluster.agent("one"), stage.cluster.agent("two")]
    for agent in stage.agents:
        agent.argv = [*([] if stage.group is None else stage.group.before), *agent.argv]
    try:
        await asyncio.gather(*(agent.start() for agent in stage.agents))
        yield
    finally:
        await asyncio.gather(*(agent.stop(grace_s=10) for agent in stage.agents))


@asynccontextmanager
async def _kept(children: Collection[Child]) -> AsyncGenerator[None]:
    """Whatever of them ends is started again."""
    keeping = [asyncio.create_task(child.keep(lambda: None)) for child in children]
    try:
        yield
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
