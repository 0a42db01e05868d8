"""What several test folders share."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from postgres import embedded_postgres

# A busy machine may hold any example up; what must end in time says so by a timeout of its own.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# Where a change lands, the same examples each time: what stops it is the change, not what else a search finds.
settings.register_profile("landing", deadline=None, derandomize=True)

# A shell's background job ignores Ctrl-C, and so would the tests and all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL of this session's own."""
    with embedded_postgres() as url:
        yield url


async def _until(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
def until() -> Callable[..., Any]:
    """Wait for a condition, with a deadline."""
    return _until
