"""Grading beside the model: what waits for it, of whom, and how fast it goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from tutelage.rewards import Graders
from tutelage.teacher.fairness import lets_in
from tutelage_client.wire import Grader, Reward, RewardItem


class GradingLine:
    """Items of all requests that are not graded yet.

    items_per_s: of all requests together, a moving mean; None before the first
    """

    def __init__(self) -> None:
        self._graders = Graders()
        self._waiting = Counter[str]()  # by owner
        self._requests = 0
        self.items_per_s: float | None = None

    @property
    def waiting_items(self) -> int:
        return self._waiting.total()

    def has_room(self, owner: str, most_items: int) -> bool:
        """Whether one more request of `owner` may wait: see `fairness.lets_in`."""
        return lets_in(owner, self._waiting, most_items)

    async def grade(self, grader: Grader, items: Sequence[RewardItem], owner: str) -> list[Reward]:
        """One reward an item, in order. Of a request that is cancelled nothing goes on."""
        began_s = perf_counter()
        with self._counted(owner, len(items)):
            rewards = await self._graders.grade(grader, items)
            self._measure(self._requests * len(items) / max(perf_counter() - began_s, 1e-6))
        return rewards

    async def close(self) -> None:
        await self._graders.close()

    def _measure(self, items_per_s: float) -> None:
        before = self.items_per_s
        self.items_per_s = items_per_s if before is None else 0.8 * before + 0.2 * items_per_s

    @contextmanager
    def _counted(self, owner: str, items: int) -> Iterator[None]:
        self._waiting[owner] += items
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._waiting[owner] -= items
            self._waiting += Counter()  # without those who have none left
