"""What a soak plays on: the processes of `cluster`, kept running as `tutelage up` keeps its own, and two trainers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from cluster import WAIT_S, Cluster
from moved_clock import MovedClock

from tutelage.standalone.children import Child
from tutelage_client.wire import RunView


@dataclass
class Stage:
    """run_id: the run under way. Its trainer is a child of one of `agents`."""

    cluster: Cluster
    agents: list[Child]
    queue_clock: MovedClock
    coordinator_clock: MovedClock
    run_id: str = ""

    def trainer(self) -> tuple[Child, psutil.Process] | None:
        """The process that executes the run, and who waits for it."""
        for agent in self.agents:
            with suppress(psutil.Error, AssertionError):
                for child in psutil.Process(agent.pid).children():
                    if "--run" in child.cmdline():
                        return agent, child
        return None

    async def playing(self) -> tuple[Child, psutil.Process]:
        """The same, once there is one."""
        async with asyncio.timeout(WAIT_S):
            while (found := self.trainer()) is None:
                await asyncio.sleep(0.05)
        return found

    def processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """Everything that lives now, by its name."""
        cluster = self.cluster
        named = {"queue": cluster.redis, "coordinator": cluster.coordinator}
        named |= {f"teacher {i}": child for i, child in enumerate(cluster.teachers)}
        named |= {f"waiting trainer {i}": child for i, child in enumerate(self.agents)}
        for name, child in named.items():
            with suppress(psutil.Error, AssertionError):
                yield name, psutil.Process(child.pid)
        if (found := self.trainer()) is not None:
            yield "trainer", found[1]

    async def run(self) -> RunView | None:
        """The run as the coordinator tells it; None where it does not answer."""
        with suppress(Exception):  # it is being broken
            async with asyncio.timeout(2), self.cluster.client() as client:
                return await client.run(self.run_id)
        return None

    def checkpoints(self) -> list[Path]:
        """Of the run, the oldest first."""
        root = self.cluster.folder / "coordinator" / "artefacts" / self.run_id
        return sorted(root.rglob("step-*-e*"), key=lambda path: path.name)
