"""A circuit breaker: an upstream that fails again and again is left alone, then tried with a single call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from time import monotonic

from tutelage_client.wire import Breaker

_LOOK_UP_S = 0.05  # of those who wait while another call tries


class CircuitBreaker:
    """Opens after `failures_to_open` failures in a row; each failed trial doubles the pause up to `longest_pause_s`."""

    def __init__(
        self,
        failures_to_open: int = 5,
        first_pause_s: float = 0.5,
        longest_pause_s: float = 15.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._failures_to_open = failures_to_open
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._clock = clock
        self._failures = 0
        self._closed_until_s = 0.0
        self._trying = False

    @property
    def is_open(self) -> bool:
        return self._failures >= self._failures_to_open

    @property
    def state(self) -> Breaker:
        if not self.is_open:
            return "closed"
        return "half_open" if self._trying or self._clock() >= self._closed_until_s else "open"

    def wait_s(self) -> float:
        """Seconds until a call may begin; 0 where it may begin now."""
        if not self.is_open:
            return 0.0
        return _LOOK_UP_S if self._trying else max(0.0, self._closed_until_s - self._clock())

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait until a call may begin. While the circuit is open one call at a time is let through, as a trial."""
        while (wait_s := self.wait_s()) > 0:  # noqa: ASYNC110 - what is waited for is a time
            await asyncio.sleep(wait_s)
        trial = self.is_open
        self._trying = self._trying or trial
        try:
            yield
        finally:
            if trial:
                self._trying = False

    def answered(self) -> None:
        """The upstream is there, whatever it said."""
        self._failures = 0

    def failed(self) -> None:
        """No answer, or one that shows a broken server."""
        self._failures += 1
        doublings = min(max(0, self._failures - self._failures_to_open), 16)
        self._closed_until_s = self._clock() + min(self._first_pause_s * 2**doublings, self._longest_pause_s)
