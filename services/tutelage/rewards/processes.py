"""Questions to a process that is killed and started anew where it does not answer in time."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tutelage.sandbox.launch import Child, NotStarted

# A process that was given less CPU time than it asked for is waited for this much longer.
_PATIENCE_S = 30.0


class NotAnswered(Exception):
    """A question has no answer, and the machine is why, whatever was asked. outcome: a word for it"""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class Worker:
    """Answers questions in a process, which it starts when first asked and again after each that it had to kill.

    module: of `sandbox`; doing: what the process does, for sentences
    """

    def __init__(self, module: str, doing: str, *, packages: bool) -> None:
        self._module = module
        self._doing = doing
        self._packages = packages
        self._held = AsyncExitStack()
        self._child: Child | None = None

    async def close(self) -> None:
        self._child = None
        await self._held.aclose()

    async def asked(self, *question: str, timeout_s: float) -> dict[str, Any]:
        """What the process says; an `outcome` and the `reason` where the question is at fault. timeout_s: of CPU time

        Raises:
            NotAnswered: the machine is at fault.
        """
        is_new = self._child is None
        said = await self._answer(question, timeout_s)
        if said.get("outcome") == "crashed" and not is_new:  # it may have ended before, or for what it was asked before
            said = await self._answer(question, timeout_s)
        return said

    async def _answer(self, question: Sequence[str], timeout_s: float) -> dict[str, Any]:
        child = await self._running()
        try:
            async with asyncio.timeout(timeout_s + _PATIENCE_S):
                answer = await child.asked(json.dumps([timeout_s, *question]).encode())
                if answer:
                    return json.loads(answer)
                code = await child.process.wait()
        except TimeoutError as error:
            await self.close()
            within = f"{timeout_s:g} s of CPU time within {timeout_s + _PATIENCE_S:g} s"
            raise NotAnswered("starved", f"{self._doing} was not given {within}; the machine is too busy") from error
        await self.close()
        if code == -signal.SIGPROF:
            return {"outcome": "timed_out", "reason": f"{self._doing} took longer than {timeout_s:g} s"}
        return {"outcome": "crashed", "reason": f"{self._doing} ended its process"}

    async def _running(self) -> Child:
        if self._child is not None:
            return self._child
        try:
            self._child = await self._held.enter_async_context(Child(self._module, packages=self._packages))
        except NotStarted as error:
            raise NotAnswered("not_started", f"the process for {self._doing} did not start: {error}") from error
        return self._child


class Workers:
    """Lends workers of one module. While any request goes on all that come back are kept, then one, until `close`."""

    def __init__(self, module: str, doing: str, *, packages: bool) -> None:
        self._new = lambda: Worker(module, doing, packages=packages)
        self._idle: list[Worker] = []
        self._requests = 0
        self._kept = 1

    @asynccontextmanager
    async def request(self) -> AsyncGenerator[None]:
        """Around all questions of a request."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                await self._let_go()

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[Worker]:
        """One that nobody else asks meanwhile. An error in the block ends it, as it may be about to answer."""
        worker = self._idle.pop() if self._idle else self._new()
        try:
            yield worker
        except BaseException:
            await worker.close()
            raise
        self._idle.append(worker)

    async def close(self) -> None:
        """Ends all that are idle; those that are lent end with their request."""
        self._kept = 0
        await self._let_go()

    async def _let_go(self) -> None:
        while len(self._idle) > self._kept:
            await self._idle.pop().close()
