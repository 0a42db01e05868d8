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
    working, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        done, _ = await asyncio.wait((working, gone), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if working in done:
            return working.result()
        if gone in done:
            raise HungUp
        detail = f"not done within the {timeout_s:g} s that {TIMEOUT_HEADER} gives; what had not begun will not be"
        raise ServiceProblem(504, "deadline_exceeded", detail)
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))


def _timeout_s(request: Request) -> float | None:
    said = request.headers.get(TIMEOUT_HEADER)
    try:
        timeout_s = None if said is None else float(said)
    except ValueError:
        timeout_s = 0.0
    if timeout_s is not None and not 0 < timeout_s < float("inf"):
        raise InvalidInput(f"{TIMEOUT_HEADER} is {said!r}; give a number of seconds above 0", TIMEOUT_HEADER)
    return timeout_s


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
