"""One supervised subprocess: started in a session of its own, logged to a file, started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tutelage_client.errors import TutelageError

START_TIMEOUT_S = 90.0
LONGEST_WAIT_S = 10.0
PR_SET_PDEATHSIG = 1
Ready = Callable[[], Awaitable[bool]]


class ChildFailed(TutelageError):
    """A child that does not come up; the message carries the end of its log."""


@dataclass
class Child:
    """`ready` is awaited after each start until it returns True; a child without one is ready at once.

    It lives in a session of its own, so that Ctrl-C reaches the supervisor alone, which then stops children in order.
    """

    name: str
    argv: list[str]
    log: Path
    env: Mapping[str, str]
    url: str | None = None
    ready: Ready | None = None
    process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            ChildFailed: it ended, or was not ready in time.
        """
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while self.ready is not None and not await self.ready():
                    if self.process.returncode is not None:
                        raise ChildFailed(f"{self.name} ended at its start: {self._last_words()}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise ChildFailed(f"{self.name} was not ready in {START_TIMEOUT_S:.0f} s: {self._last_words()}") from None

    async def keep(self, restarted: Callable[[], None]) -> None:
        """Start it again whenever it ends, the waits doubling while it keeps failing."""
        wait_s = 0.2
        while True:
            assert self.process is not None
            await self.process.wait()
            await asyncio.sleep(wait_s)
            try:
                await self.start()
            except ChildFailed:
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
                await self.stop(grace_s=1.0)
                continue
            wait_s = 0.2
            restarted()

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL to the whole session after `grace_s`."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), grace_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()[-5:]
        return " | ".join(lines) or "it wrote no log"


def _die_with_parent() -> None:
    """On Linux a child gets SIGTERM when its supervisor is gone, so that no second stack meets an orphan's files."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


async def answers_ready(url: str) -> bool:
    """Whether a service says that it can take work."""
    async with httpx2.AsyncClient(timeout=2.0) as client:
        try:
            return (await client.get(f"{url}/readyz")).status_code == 200
        except httpx2.TransportError:
            return False
