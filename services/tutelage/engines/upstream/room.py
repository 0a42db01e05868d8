"""How many tokens may be scored at one upstream at a time, each in memory that the server never measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class TokenRoom:
    """First come, first served, so that no long sequence waits for ever behind short ones.

    most: tokens at a time, None for no bound; who has more than that goes alone
    """

    def __init__(self, most: int | None) -> None:
        self.most = most
        self._taken = 0
        self._line = asyncio.Lock()  # held by whoever is first in the line
        self._left = asyncio.Event()

    @asynccontextmanager
    async def taken(self, tokens: int) -> AsyncGenerator[None]:
        """Wait for room and take it. Who scores nothing waits for nobody."""
        if tokens:
            async with self._line:
                await self._until_fits(tokens)
                self._taken += tokens
        try:
            yield
        finally:
            self._taken -= tokens
            self._left.set()

    async def _until_fits(self, tokens: int) -> None:
        while self.most is not None and self._taken and self._taken + tokens > self.most:
            self._left.clear()
            await self._left.wait()
