"""How long the last answers took."""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import NamedTuple

LATEST = 1000  # answers that percentiles are over


class Percentiles(NamedTuple):
    """Of the last answers so large a share took no longer; None while there is none."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


class Latencies:
    """The seconds of the last LATEST answers."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=LATEST)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def percentiles(self) -> Percentiles:
        ordered = sorted(self._seconds)
        if not ordered:
            return Percentiles(None, None, None)
        return Percentiles(*(ordered[ceil(share * len(ordered)) - 1] for share in (0.5, 0.95, 0.99)))
