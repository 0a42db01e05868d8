"""Places where a launcher launches, for the one contract suite: real processes, and a Kubernetes API that is mocked."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import kmock

from tutelage.coordinator.launchers import Launch, Launcher, LaunchFailed, LaunchStatus
from tutelage.coordinator.launchers.cluster import Cluster
from tutelage.coordinator.launchers.kubernetes import KubernetesLauncher
from tutelage.coordinator.launchers.processes import ProcessLauncher

# A trainer's stand-in: it says who it is, and ends as a file tells it, or with 75 when it is told to go.
TRAINER = """
import os, pathlib, signal, sys, time
run, name = os.environ["TUTELAGE_TRAINER_RUN"], os.environ["TUTELAGE_TRAINER_NAME"]
orders = pathlib.Path(sys.argv[1]) / name
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("begins", run, name, flush=True)
(orders.parent / (orders.name + ".began")).touch()
while not orders.exists():
    time.sleep(0.01)
code, *lines = orders.read_text().splitlines()
print(*lines, sep="\\n", flush=True)
sys.exit(int(code))
"""


class Place(Protocol):
    def launcher(self) -> Launcher:
        """One more coordinator's launcher over this place."""
        ...

    def made(self) -> list[str]:
        """The names under which something was started."""
        ...

    async def begin(self, launch: Launch) -> None:
        """Let what was launched be running."""
        ...

    async def end(self, launch: Launch, code: int, lines: list[str]) -> None:
        """Let it write these lines and end with this code."""
        ...

    async def obey(self, launch: Launch) -> None:
        """Let it do what it was last told by a signal."""
        ...


class Processes:
    """Launches of real processes below `folder`."""

    def __init__(self, folder: Path, until: Any) -> None:
        self._folder, self._until = folder, until
        (folder / "orders").mkdir()

    def launcher(self) -> Launcher:
        command = [sys.executable, "-c", TRAINER, str(self._folder / "orders")]
        return ProcessLauncher(self._folder / "launches", command, {"PATH": "/usr/bin:/bin"})

    def made(self) -> list[str]:
        return sorted(path.name for path in (self._folder / "launches").glob("*"))

    async def begin(self, launch: Launch) -> None:
        await self._until((self._folder / "orders" / f"{launch.name}.began").exists)

    async def end(self, launch: Launch, code: int, lines: list[str]) -> None:
        await self.begin(launch)
        orders = self._folder / "orders" / launch.name
        orders.with_suffix(".new").write_text("\n".join([str(code), *lines]))
        orders.with_suffix(".new").rename(orders)

    async def obey(self, launch: Launch) -> None:
        """It does so by itself."""


class MockedCluster:
    """Launches in a cluster whose API server keeps objects; what its controllers would do, this does."""

    def __init__(self, api: kmock.KubernetesEmulator, account: Path, nodes: int) -> None:
        self._api, self._account, self._nodes = api, account, nodes
        self._jobs = kmock.resource("batch/v1/jobs" if nodes == 1 else "trainer.kubeflow.org/v1alpha1/trainjobs")
        self._pods = kmock.resource("v1/pods")
        self._name_label = "batch.kubernetes.io/job-name" if nodes == 1 else "jobset.sigs.k8s.io/jobset-name"
        for name, text in {"token": "a token\n", "namespace": "tutelage\n"}.items():
            (account / name).write_text(text)
        for each in (self._jobs, self._pods, kmock.resource("batch/v1/cronjobs")):
            api.resources[each] = kmock.ResourceInfo()
        api.objects[kmock.resource("batch/v1/cronjobs"), "tutelage", "trainer"] = cron_job()

    def launcher(self) -> Launcher:
        return KubernetesLauncher(Cluster(str(self._api.url), self._account), "trainer", self._nodes)

    def made(self) -> list[str]:
        return sorted(name for resource, _, name in self._api.objects if resource == self._jobs)

    def job(self, launch: Launch) -> dict[str, Any]:
        return dict(self._api.objects[self._jobs, "tutelage", launch.name])

    async def begin(self, launch: Launch) -> None:
        for node in range(self._nodes):
            self._pod(launch, node, "Running", {"running": {}})

    async def end(self, launch: Launch, code: int, lines: list[str]) -> None:
        for node in range(self._nodes):
            # of several nodes the first to fail takes the others with it
            end = {"exitCode": code if node == 0 else min(code, 1), "finishedAt": f"2026-01-01T00:00:0{node}Z"}
            self._pod(launch, node, "Failed" if code else "Succeeded", {"terminated": end})
            log = f"get /api/v1/namespaces/tutelage/pods/{launch.name}-{node}/log"
            _ = self._api[log] << "\n".join([*lines, ""]).encode()
        self._conclude(launch, "Failed" if code else "Complete")

    async def obey(self, launch: Launch) -> None:
        for node in range(self._nodes):
            del self._api.objects[self._pods, "tutelage", f"{launch.name}-{node}"]

    def _conclude(self, launch: Launch, how: str) -> None:
        condition = {"type": how, "status": "True", "reason": "BackoffLimitExceeded" if how == "Failed" else "Done"}
        self._api.objects[self._jobs, "tutelage", launch.name].patch({"status": {"conditions": [condition]}})

    def _pod(self, launch: Launch, node: int, phase: str, state: dict[str, Any]) -> None:
        metadata = {"name": f"{launch.name}-{node}", "namespace": "tutelage", "labels": {self._name_label: launch.name}}
        status = {"phase": phase, "containerStatuses": [{"name": "trainer", "state": state}]}
        self._api.objects[self._pods, "tutelage", f"{launch.name}-{node}"] = {"metadata": metadata, "status": status}


def cron_job() -> dict[str, Any]:
    """What Jobs are copied from."""
    container = {"name": "trainer", "image": "trainer", "env": [{"name": "A", "value": "b"}]}
    pod = {"metadata": {"labels": {"app.kubernetes.io/name": "trainer"}}, "spec": {"containers": [container]}}
    job = {"metadata": {"labels": {"part": "x"}}, "spec": {"backoffLimit": 0, "template": pod}}
    return {"metadata": {"name": "trainer"}, "spec": {"suspend": True, "jobTemplate": job}}


class Recorder:
    """A launcher that starts nothing: what it launched lives until the test says otherwise.

    away: it does not answer; bug: it raises this; meanwhile: what happens elsewhere while it launches
    """

    kind = "subprocess"

    def __init__(self) -> None:
        self.known: dict[Launch, LaunchStatus] = {}
        self.told: list[tuple[Launch, int]] = []
        self.away = False
        self.refusals = 0
        self.bug: Exception | None = None
        self.meanwhile: Callable[[], Awaitable[Any]] | None = None

    async def launch(self, launch: Launch) -> bool:
        await asyncio.sleep(0)  # another coordinator may come first
        is_new = launch not in self.known
        self.known.setdefault(launch, LaunchStatus("pending"))
        if self.meanwhile is not None:
            await self.meanwhile()
        return is_new

    async def status(self, launch: Launch) -> LaunchStatus:
        await asyncio.sleep(0)
        if self.bug is not None:
            raise self.bug
        if self.away:
            self.refusals += 1
            raise LaunchFailed("the cluster does not answer")
        return self.known.get(launch, LaunchStatus("absent"))

    async def signal(self, launch: Launch, number: Literal[signal.Signals.SIGTERM, signal.Signals.SIGKILL]) -> None:
        self.told.append((launch, number))

    async def logs(self, launch: Launch, lines: int) -> str | None:
        if self.away:
            raise LaunchFailed("the cluster does not answer")
        return f"{launch.name} says\n" * lines if launch in self.known else None

    async def close(self) -> None: ...

    def end(self, launch: Launch, code: int | None) -> None:
        self.known[launch] = LaunchStatus("ended", code)
