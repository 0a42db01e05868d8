"""Work for as long as somebody waits for it: until the client hangs up, or its own deadline has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from tutelage.serving import ServiceProblem
from tutelage_client.errors import InvalidInput

TIMEOUT_HEADER = "Tutelage-Timeout-S"  # relative, as clocks differ
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
    leaving = asyncio.create_task(_end_when_gone(request, limit))
    try:
        async with limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise  # of the work itself
        if leaving.done():
            raise HungUp from error
        detail = f"not done within the {timeout_s:g} s that {TIMEOUT_HEADER} gives; what had not begun will not be"
        raise ServiceProblem(504, "deadline_exceeded", detail) from error
    finally:
        leaving.cancel()


async def _end_when_gone(request: Request, limit: asyncio.Timeout) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())


def _timeout_s(request: Request) -> float | None:
    said = request.headers.get(TIMEOUT_HEADER)
    try:
        timeout_s = None if said is None else float(said)
    except ValueError:
        timeout_s = 0.0
    if timeout_s is not None and not 0 < timeout_s < float("inf"):
        raise InvalidInput(f"{TIMEOUT_HEADER} is {said!r}; give a number of seconds above 0", TIMEOUT_HEADER)
    return timeout_s
