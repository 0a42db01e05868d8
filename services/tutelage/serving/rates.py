"""How fast one caller may ask: token buckets."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

from tutelage_client.errors import TutelageError


class RateLimited(TutelageError):
    """Asked too fast; `retry_after_s` from now the same request goes."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Bucket:
    """`rate` units flow in each second, up to one second's worth; a larger request waits for a full bucket.

    Such a request leaves a debt, which those after it wait for: the mean rate holds for requests of any size.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = monotonic) -> None:
        self._rate = rate
        self._most = max(rate, 1.0)
        self._level = self._most
        self._clock = clock
        self._seen_s = clock()

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` may be taken; 0 where it may be now."""
        now_s = self._clock()
        self._level = min(self._most, self._level + (now_s - self._seen_s) * self._rate)
        self._seen_s = now_s
        wait_s = (min(amount, self._most) - self._level) / self._rate
        return max(0.0, round(wait_s, 6))  # less than a microsecond is what rounding leaves, not a wait

    def take(self, amount: float) -> None:
        self._level -= amount


class Pace:
    """The rates of one key, requests and tokens a second; None is no limit."""

    def __init__(
        self,
        owner: str,
        requests_per_s: float | None,
        tokens_per_s: float | None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._owner = owner
        rates = {"requests": requests_per_s, "tokens": tokens_per_s}
        self._rates = {unit: rate for unit, rate in rates.items() if rate is not None}
        self._buckets = {unit: Bucket(rate, clock) for unit, rate in self._rates.items()}

    def take(self, tokens: int) -> None:
        """Count one request of so many tokens.

        Raises:
            RateLimited: it comes too early.
        """
        amounts = {"requests": 1, "tokens": tokens}
        for unit, bucket in self._buckets.items():
            if (wait_s := bucket.wait_s(amounts[unit])) > 0:
                after_s = math.ceil(wait_s)
                message = f"{self._owner} may ask for {self._rates[unit]:g} {unit} a second; try again in {after_s} s"
                raise RateLimited(message, after_s)
        for unit, bucket in self._buckets.items():
            bucket.take(amounts[unit])
