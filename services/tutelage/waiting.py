"""Waiting that ends early when there is a reason to."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tutelage.telemetry import describe_error
from tutelage_client.errors import ServiceUnreachable

log = logging.getLogger(__name__)
Result = TypeVar("Result")


async def is_set_within(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for `event`, at most `timeout_s`; True when it is set."""
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return event.is_set()
    return True


async def until_reached(queue_call: Callable[[], Awaitable[Result]], stopping: asyncio.Event) -> Result | None:
    """Call the queue until it answers, with growing pauses; None when told to stop while it does not."""
    failures = 0
    while True:
        try:
            return await queue_call()
        except ServiceUnreachable as error:
            failures += 1
            log.warning("the queue is unreachable", extra={"failures": failures, **describe_error(error)})
            if stopping.is_set():
                return None
            await is_set_within(stopping, random.uniform(0, min(5.0, 0.1 * 2**failures)))
