"""Start and stop one of these processes: without this process's environment, in a group and a directory of its own."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

_ROOT = Path(__file__).parents[2]
# Isolated mode reads neither PYTHONPATH nor the working directory; the source root is named instead.
_BOOT = "import sys; sys.path.insert(0, {root!r}); from tutelage.sandbox.{module} import main; main()"
_START_S = 60.0
_LONGEST_LINE = 1 << 20  # bytes


class NotStarted(Exception):
    """The machine gave no process, or it ended before it was ready."""


class Child:
    """`main()` of a module of this package, on pipes. Leaving the block kills its group, whatever it does.

    ready: the line that it began with
    """

    def __init__(self, module: str, *arguments: str, packages: bool) -> None:
        """arguments: what follows in its sys.argv; packages: installed ones can be imported, not Python's own alone"""
        boot = _BOOT.format(root=str(_ROOT), module=module)
        self._command = [sys.executable, "-I", "-B", *(() if packages else ("-S",)), "-c", boot, *arguments]
        self.ready = b""

    async def __aenter__(self) -> Self:
        """Raises: NotStarted."""
        self._directory = _directory()
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                cwd=self._directory.name,
                env={},
                start_new_session=True,
                limit=_LONGEST_LINE,
            )
        except BaseException as error:
            self._directory.cleanup()
            if isinstance(error, OSError):
                raise NotStarted(f"the machine starts no process: {error.strerror}") from error
            raise
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        try:
            await self._become_ready()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._end()

    async def asked(self, line: bytes) -> bytes:
        """What it answers to this line; empty where it ends instead."""
        with suppress(ConnectionError):  # it ended before it had read all of it
            self._stdin.write(line + b"\n")
            await self._stdin.drain()
        return await self._stdout.readline()

    async def _become_ready(self) -> None:
        try:
            async with asyncio.timeout(_START_S):
                self.ready = await self._stdout.readline()
        except TimeoutError as error:
            raise NotStarted(f"it was not ready within {_START_S:g} s") from error
        if not self.ready:
            raise NotStarted("it ended before it was ready")

    async def _end(self) -> None:
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(self.process.pid, signal.SIGKILL)
        try:
            self._stdin.close()
            await self.process.communicate()
        finally:
            self._directory.cleanup()


def _directory() -> TemporaryDirectory[str]:
    made = TemporaryDirectory(prefix="tutelage-", ignore_cleanup_errors=True)
    Path(made.name).chmod(0o755)  # the process may go on as another user
    return made


def limit(*, memory_mb: int, cpu_s: int | None = None) -> None:
    """For this process and its children: memory, CPU time, no written byte, few files, no core dump."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    if cpu_s is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
