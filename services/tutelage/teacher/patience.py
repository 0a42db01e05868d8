"""Work for as long as somebody waits for it: until the client hangs up, or its own deadline has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from tutelage.serving import ServiceProblem
from tutelage_client.errors import InvalidInput

TIMEOUT_HEADER = "Tutelage-Timeout-S"  # relative, as clocks differ
_LOOK_AFTER_S = 0.02
Result = TypeVar("Result")


class HungUp(Exception):
    """Nobody is there any more to be answered."""


async def while_wanted(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client goes away or its deadline passes.

    Raises:
        ServiceProblem: 504 past the deadline. HungUp: the client is gone. InvalidInput: the header is no duration.
    """
    try:
        timeout_s = _timeout_s(request)
    except InvalidInput:
        work.close()
        raise
    limit = asyncio.timeout(timeout_s)
    leaving = _Leaving(request, limit)
    try:
        async with limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise  # of the work itself
        if leaving.is_seen:
            raise HungUp from error
        detail = f"not done within the {timeout_s:g} s that {TIMEOUT_HEADER} gives; what had not begun will not be"
        raise ServiceProblem(504, "deadline_exceeded", detail) from error
    finally:
        leaving.stop()


class _Leaving:
    """Ends `limit` when the client goes. Most work is done before it is worth a task to look for that.

    is_seen: the client has gone
    """

    def __init__(self, request: Request, limit: asyncio.Timeout) -> None:
        self._request = request
        self._limit = limit
        self._looking: asyncio.Task[None] | None = None
        self._later = asyncio.get_running_loop().call_later(_LOOK_AFTER_S, self._look)
        self.is_seen = False

    def stop(self) -> None:
        self._later.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _look(self) -> None:
        self._looking = asyncio.create_task(self._end_when_gone())

    async def _end_when_gone(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.is_seen = True
        if not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())


def _timeout_s(request: Request) -> float | None:
    said = request.headers.get(TIMEOUT_HEADER)
    try:
        timeout_s = None if said is None else float(said)
    except ValueError:
        timeout_s = 0.0
    if timeout_s is not None and not 0 < timeout_s < float("inf"):
        raise InvalidInput(f"{TIMEOUT_HEADER} is {said!r}; give a number of seconds above 0", TIMEOUT_HEADER)
    return timeout_s
