"""What a teacher did since its start, as it tells the coordinator with each registration."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tutelage.engines.latency import Latencies
from tutelage.teacher.prices import PICO, Cost
from tutelage_client.wire import Activity, CanaryResult, RunSpending

CANARIES = 20
RUNS = 100


class Record:
    """Kept in memory: the last answers' seconds by `clock`, the last canaries, and what was spent, by run too."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._latencies = Latencies()
        self._canaries: deque[CanaryResult] = deque(maxlen=CANARIES)
        self._answered = 0
        self._spent = Cost()
        self._by_run: dict[str, Cost] = {}  # the one that asked last is the last

    @contextmanager
    def timed(self) -> Iterator[None]:
        """A request; one that ends in an error is not an answer."""
        begun_s = self._clock()
        yield
        self._latencies.add(self._clock() - begun_s)
        self._answered += 1

    def spend(self, cost: Cost, run_id: str | None) -> None:
        """run_id: whose it was; None where no run asked"""
        self._spent += cost
        if run_id is not None:
            self._by_run[run_id] = self._by_run.pop(run_id, Cost()) + cost
            if len(self._by_run) > RUNS:
                del self._by_run[next(iter(self._by_run))]

    def canary(self, reason: str | None) -> None:
        """reason: why it failed, None where it did not"""
        self._canaries.append(CanaryResult(at=datetime.now(UTC), ok=reason is None, reason=reason))

    def view(self) -> Activity:
        by_run = self._by_run.items()
        return Activity(
            answered=self._answered,
            **self._latencies.percentiles()._asdict(),
            spent_tokens=self._spent.tokens,
            spent_usd=self._spent.picousd / PICO,
            runs=tuple(RunSpending(run_id=run, tokens=at.tokens, usd=at.picousd / PICO) for run, at in by_run),
            canaries=tuple(self._canaries),
        )
