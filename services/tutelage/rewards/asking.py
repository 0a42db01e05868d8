"""The rewards of one request that the chat model judges. Of reward models: `models`; without a model: `graders`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tutelage.rewards.judging import Ask
from tutelage.rewards.pairwise import pairwise_rewards
from tutelage.rewards.rubric import rubric_rewards
from tutelage_client.wire import Reward, RewardRequest, Usage

Rewards = tuple[list[Reward], Usage]
JUDGES: dict[str, Callable[[Ask, RewardRequest], Awaitable[Rewards]]] = {
    "rubric": rubric_rewards,
    "pairwise": pairwise_rewards,
}


async def judge_rewards(request: RewardRequest, ask: Ask) -> Rewards:
    """One reward an item, in order, and what they cost. ask: puts questions to the teacher's model, each by itself

    Raises:
        TutelageError: the model could not be asked, or answered nothing at all.
    """
    return await JUDGES[request.reward.kind](ask, request)
