"""The rewards of one request: graded here, or asked of the teacher's chat model. Reward models: `models`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tutelage.rewards.graders import grade
from tutelage.rewards.judging import Ask
from tutelage.rewards.pairwise import pairwise_rewards
from tutelage.rewards.rubric import rubric_rewards
from tutelage_client.wire import ModelReward, Reward, RewardRequest, Usage

Rewards = tuple[list[Reward], Usage]
JUDGES: dict[str, Callable[[Ask, RewardRequest], Awaitable[Rewards]]] = {
    "rubric": rubric_rewards,
    "pairwise": pairwise_rewards,
}


async def rewards_of(request: RewardRequest, ask: Ask) -> Rewards:
    """One reward an item, in order, and what they cost. ask: has the teacher's model write

    Raises:
        TutelageError: the model could not be asked.
    """
    if isinstance(request.reward, ModelReward):
        return await JUDGES[request.reward.kind](ask, request)
    return await asyncio.to_thread(grade, request.reward, request.items), Usage()
