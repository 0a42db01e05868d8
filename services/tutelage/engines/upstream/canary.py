"""A known question, asked again from time to time: a server that answers it differently has another model by now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from tutelage_client.errors import BadScores


class Canary:
    """`ask` gives log-probs [R]; `differs` says why two of these are no answers of one model, None if they can be.

    recheck_s: how old the last look may be when work comes
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[NDArray[np.float64]]],
        differs: Callable[[NDArray[np.float64], NDArray[np.float64]], str | None],
        recheck_s: float,
    ) -> None:
        self._ask = ask
        self._differs = differs
        self._recheck_s = recheck_s
        self._seen_s = 0.0
        self._looking = asyncio.Lock()
        self.known = np.zeros(0)

    async def remember(self) -> None:
        """Ask for the first time; whatever comes is the truth from then on.

        Raises:
            BadScores: a later answer was another one, also when the server had been away meanwhile.
        """
        if self.known.size:
            await self._compare()
        else:
            self.known = await self._ask()
            self._seen_s = monotonic()

    async def look(self) -> None:
        """Ask again if the last time is long ago. Raises: as `remember`."""
        async with self._looking:  # calls that come together look once
            if monotonic() - self._seen_s >= self._recheck_s:
                await self._compare()

    async def _compare(self) -> None:
        differs = self._differs(self.known, await self._ask())
        if differs is not None:
            raise BadScores(
                f"the upstream scores a known sequence differently than at the start ({differs}): another model "
                "answers under the same name; restart this teacher if that is meant",
                "mismatch",
            )
        self._seen_s = monotonic()
