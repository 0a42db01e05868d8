"""Start and stop one of these processes: without this process's environment, in a group and a directory of its own."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Self

_ROOT = Path(__file__).parents[2]
# Isolated mode reads neither PYTHONPATH nor the working directory; the source root is named instead.
_BOOT = "import sys; sys.path.insert(0, {root!r}); from tutelage.sandbox.{module} import main; main()"


class Child:
    """`main()` of a module of this package, on pipes. Leaving the block kills its group, whatever it does."""

    def __init__(self, module: str, *arguments: str, packages: bool) -> None:
        """arguments: what follows in its sys.argv; packages: installed ones can be imported, not Python's own alone"""
        boot = _BOOT.format(root=str(_ROOT), module=module)
        self._command = [sys.executable, "-I", "-B", *(() if packages else ("-S",)), "-c", boot, *arguments]

    def __enter__(self) -> Self:
        self._directory = TemporaryDirectory(prefix="tutelage-", ignore_cleanup_errors=True)
        Path(self._directory.name).chmod(0o755)  # the process may go on as another user
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._directory.name,
            env={},
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[bytes] = self.process.stdin
        self.stdout: IO[bytes] = self.process.stdout
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(self.process.pid, signal.SIGKILL)
        self.stdout.close()
        with suppress(BrokenPipeError):  # a question that it did not live to read
            self.stdin.close()
        self.process.wait()
        self._directory.cleanup()


def limit(*, memory_mb: int, cpu_s: int | None = None) -> None:
    """For this process and its children: memory, CPU time, no written byte, few files, no core dump."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    if cpu_s is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
