"""A reward model's values as rewards: what it cannot read is not valid, and the rest stands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tutelage.engines.base import RewardEngine
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Reward, RewardItem, Usage

Value = Callable[[list[list[int]]], Awaitable[tuple[list[float], Usage]]]


async def model_rewards(engine: RewardEngine, value: Value, items: Sequence[RewardItem]) -> tuple[list[Reward], Usage]:
    """One reward an item, in order. value: has the engine's model read rows, in turn and paid for

    Raises:
        TutelageError: the model could not be asked.
    """
    read = await asyncio.to_thread(lambda: [_row(engine, item) for item in items])
    rows = [row for row in read if not isinstance(row, Reward)]
    values, usage = await value(rows) if rows else ([], Usage())
    given = iter(values)
    return [row if isinstance(row, Reward) else Reward(value=next(given), valid=True) for row in read], usage


def _row(engine: RewardEngine, item: RewardItem) -> list[int] | Reward:
    try:
        return engine.row(item)
    except InvalidInput as error:
        return Reward(value=None, valid=False, detail={"reason": str(error)})
