"""Rewards that need no model. The tables are the list of kinds; their data is `tutelage_client.wire.grading`.

What the text of an item brings about is a value: an answer that ends its process or takes all of its time is wrong, or
a student would do well to write such answers. What the data or the machine brings about is not valid and says why.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tutelage.rewards.graders import GRADERS
from tutelage.rewards.mathematics import equal_answer
from tutelage.rewards.outcomes import ungraded
from tutelage.rewards.patterns import pattern
from tutelage.rewards.processes import NotAnswered, Worker, Workers
from tutelage.rewards.unit_tests import tested
from tutelage_client.wire import Grader, Reward, RewardItem

# These ask a process, which many items share.
ASKED: dict[str, Callable[[Any, RewardItem, Worker], Awaitable[Reward]]] = {"math": equal_answer, "pattern": pattern}
# These start processes for each item.
ALONE: dict[str, Callable[[Any, RewardItem], Awaitable[Reward]]] = {"unit_tests": tested}
# For fewer items than this a request asks no process beside its first, as one takes long to start.
_WORTH_A_PROCESS = 64


class Graders:
    """Grades on one event loop. Of a call that is cancelled nothing goes on. Used until `close`.

    at_once: items of all calls that are graded in processes at a time; the calls take turns, item by item
    """

    def __init__(self, at_once: int = os.cpu_count() or 1) -> None:
        self._at_once = at_once
        self._turn = asyncio.Semaphore(at_once)
        self._workers = {
            "math": Workers("algebra", "comparing the answers", packages=True),
            "pattern": Workers("search", "searching for the pattern", packages=False),
        }

    async def grade(self, grader: Grader, items: Sequence[RewardItem]) -> list[Reward]:
        """One reward an item, in order."""
        if grader.kind in GRADERS:
            return [await _in_process(grader, item) for item in items]
        if grader.kind in ALONE:
            return await self._beside(grader, items, lanes=len(items))
        async with self._workers[grader.kind].request():
            return await self._beside(grader, items, lanes=math.ceil(len(items) / _WORTH_A_PROCESS))

    async def close(self) -> None:
        for workers in self._workers.values():
            await workers.close()

    async def _beside(self, grader: Grader, items: Sequence[RewardItem], lanes: int) -> list[Reward]:
        """As many items beside each other as lanes, as far as there are turns."""
        rewards: dict[int, Reward] = {}
        waiting = iter(enumerate(items))

        async def lane() -> None:
            for place, item in waiting:
                async with self._turn:
                    rewards[place] = await self._isolated(grader, item)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(lanes, self._at_once)):
                group.create_task(lane())
        return [rewards[place] for place in range(len(items))]

    async def _isolated(self, grader: Grader, item: RewardItem) -> Reward:
        try:
            if grader.kind in ALONE:
                return await ALONE[grader.kind](grader, item)
            async with self._workers[grader.kind].one() as worker:
                return await ASKED[grader.kind](grader, item, worker)
        except NotAnswered as why:
            return ungraded(str(why), outcome=why.outcome)


def grade(grader: Grader, items: Sequence[RewardItem]) -> list[Reward]:
    """One reward an item, in order, for who asks once and has no event loop."""

    async def graded() -> list[Reward]:
        graders = Graders()
        try:
            return await graders.grade(grader, items)
        finally:
            await graders.close()

    return asyncio.run(graded())


async def _in_process(grader: Grader, item: RewardItem) -> Reward:
    await asyncio.sleep(0)  # others go on between two items, and here a call can be cancelled
    return GRADERS[grader.kind](grader, item)
