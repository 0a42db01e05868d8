"""What a teacher did since its start, as it tells the coordinator with each registration."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import ceil

from tutelage.teacher.prices import PICO, Cost
from tutelage_client.wire import Activity, CanaryResult

LATEST = 1000  # answers that percentiles are over
CANARIES = 20


class Record:
    """Kept in memory: the last answers' seconds by `clock`, the last canaries, and what was spent."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: deque[float] = deque(maxlen=LATEST)
        self._canaries: deque[CanaryResult] = deque(maxlen=CANARIES)
        self._answered = 0
        self._spent = Cost()

    @contextmanager
    def timed(self) -> Iterator[None]:
        """A request; one that ends in an error is not an answer."""
        begun_s = self._clock()
        yield
        self._seconds.append(self._clock() - begun_s)
        self._answered += 1

    def spend(self, cost: Cost) -> None:
        self._spent += cost

    def canary(self, reason: str | None) -> None:
        """reason: why it failed, None where it did not"""
        self._canaries.append(CanaryResult(at=datetime.now(UTC), ok=reason is None, reason=reason))

    def view(self) -> Activity:
        ordered = sorted(self._seconds)
        p50, p95, p99 = (ordered[ceil(share * len(ordered)) - 1] if ordered else None for share in (0.5, 0.95, 0.99))
        return Activity(
            answered=self._answered,
            p50_s=p50,
            p95_s=p95,
            p99_s=p99,
            spent_tokens=self._spent.tokens,
            spent_usd=self._spent.picousd / PICO,
            canaries=tuple(self._canaries),
        )
