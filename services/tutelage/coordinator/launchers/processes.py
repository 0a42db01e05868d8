"""Trainers as processes beside the coordinator: `--launcher subprocess`.

A launch is a folder below the data directory. It comes into being with its name, so that of several coordinators one
makes it; a lock in it is held for as long as the trainer lives; its shell writes down how the trainer ended. So a
coordinator that was restarted knows as much of a launch as the one that made it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tutelage.coordinator.launchers.base import Launch, LaunchFailed, LaunchStatus

# The shell outlives its command, whatever both are told, and writes down how that ended.
SHELL = """
trap : TERM INT HUP
echo $$ > "$0/pid.new" && mv "$0/pid.new" "$0/pid"
"$@"
code=$?
echo $code > "$0/exit.new" && mv "$0/exit.new" "$0/exit"
"""
PID_WAIT_S = 5.0
T = TypeVar("T")


class ProcessLauncher:
    """Starts the command with the run in its environment, in a session of its own, which outlives this process.

    folder: where launches are; coordinators that see the same folder share them
    """

    kind = "subprocess"

    def __init__(self, folder: Path, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._folder, self.command, self.env = folder, list(command), dict(env)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    async def launch(self, launch: Launch) -> bool:
        return await self._done("start a process", self._start, launch)

    def _start(self, launch: Launch) -> bool:
        """The folder is made under another name and renamed when its lock is held: who sees it sees a launch."""
        if (self._folder / launch.name).exists():
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".", dir=self._folder))
        with (made / "lock").open("w") as lock, (made / "log").open("wb") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                made.rename(self._folder / launch.name)
            except OSError:
                shutil.rmtree(made)
                if (self._folder / launch.name).exists():
                    return False  # another coordinator was quicker
                raise
            self._children[launch.name] = subprocess.Popen(  # noqa: S603 - our own command line
                ["/bin/sh", "-c", SHELL, str(self._folder / launch.name), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env | launch.variables,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
        return True

    async def status(self, launch: Launch) -> LaunchStatus:
        return await self._done("look for a process", self._look, launch)

    def _look(self, launch: Launch) -> LaunchStatus:
        folder = self._folder / launch.name
        if (child := self._children.get(launch.name)) is not None and child.poll() is not None:
            del self._children[launch.name]
        if not folder.is_dir():
            return LaunchStatus("absent")
        if _is_locked(folder):
            return LaunchStatus("running")
        code = _read(folder / "exit")
        return LaunchStatus("ended", None if code is None else int(code))

    async def signal(self, launch: Launch, number: signal.Signals) -> None:
        """To every process of the session's group; the workers of a torchrun get it from that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PID_WAIT_S):
                while True:
                    if await self._done("signal a process", _signalled, self._folder / launch.name, number):
                        return
                    await asyncio.sleep(0.01)  # its shell has just begun

    async def logs(self, launch: Launch, lines: int) -> str | None:
        return await self._done("read a log", _tail, self._folder / launch.name / "log", lines)

    async def _done(self, what: str, work: Callable[..., T], *given: Any) -> T:
        """
        Raises:
            LaunchFailed: the disk or the machine refuses it.
        """
        try:
            return await asyncio.to_thread(work, *given)
        except OSError as error:
            raise LaunchFailed(f"cannot {what} in {self._folder}: {error.strerror}") from error

    async def close(self) -> None:
        """Trainers go on: a coordinator that is started again finds them, and without one they end with their lease."""
        for child in self._children.values():
            child.returncode = child.poll() or 0  # not waited for any more


def _signalled(folder: Path, number: signal.Signals) -> bool:
    """False where it lives and its shell has not written down yet which process it is."""
    if not folder.is_dir() or not _is_locked(folder):
        return True
    if (pid := _read(folder / "pid")) is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int(pid), number)
    return True


def _is_locked(folder: Path) -> bool:
    """Whether a process of the launch lives."""
    with (folder / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return None


def _tail(path: Path, lines: int) -> str | None:
    try:
        with path.open(errors="replace") as log:
            return "".join(deque(log, lines))
    except FileNotFoundError:
        return None
