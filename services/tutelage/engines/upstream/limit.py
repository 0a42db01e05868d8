"""How many calls may be open at one upstream at a time: found by trying, as a congestion window is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class AdaptiveLimit:
    """Grows by about one for every full round of successes, halves when the upstream is overloaded.

    Additive increase, multiplicative decrease (Chiu and Jain, 1989). most: never exceeded
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(2, most))
        self._open = 0
        self._room = asyncio.Event()
        self._halvings = 0

    @property
    def limit(self) -> int:
        return int(self._limit)

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[int]:
        """Wait for room and hold it. Yields a ticket for `halve`."""
        while self._open >= self.limit:
            self._room.clear()
            await self._room.wait()
        self._open += 1
        try:
            yield self._halvings
        finally:
            self._open -= 1
            self._room.set()

    def grow(self) -> None:
        """A call went well."""
        self._limit = min(self._limit + 1 / self._limit, float(self._most))
        self._room.set()

    def halve(self, ticket: int) -> None:
        """A call was refused. Calls that were open together say it together, and count once."""
        if ticket == self._halvings:
            self._halvings += 1
            self._limit = max(1.0, self._limit / 2)
