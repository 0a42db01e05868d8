"""Whether an upstream takes no work because it is over its limits, and what it says of when to come again."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from tutelage_client.wire import Overload

# Beyond Retry-After: whoever waits for the upstream has tried again by then.
_STALE_AFTER_S = 10.0


class Refusals:
    """Refused calls since a call last went well."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._since_s: float | None = None
        self._last_s = 0.0
        self._retry_after_s = 0.0
        self._reason = ""

    def refused(self, reason: str, retry_after_s: float) -> None:
        """A call was refused. retry_after_s: what the upstream asked to wait, 0 where it did not say"""
        self._last_s = self._clock()
        if self._since_s is None:
            self._since_s = self._last_s
        self._retry_after_s, self._reason = retry_after_s, reason

    def taken(self) -> None:
        """A call went well."""
        self._since_s = None

    @property
    def overload(self) -> Overload | None:
        """None where the last call went well, none was made, or nobody has tried for long."""
        now_s = self._clock()
        if self._since_s is None or now_s > self._last_s + self._retry_after_s + _STALE_AFTER_S:
            return None
        lasting_s = round(now_s - self._since_s, 1)
        return Overload(lasting_s=lasting_s, retry_after_s=self._retry_after_s, reason=self._reason)
