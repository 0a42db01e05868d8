"""The rewards of one request: graded here, or asked of the teacher's model."""

from __future__ import annotations

import asyncio

from tutelage.rewards.graders import grade
from tutelage_client.wire import ModelReward, Reward, RewardRequest, Usage


async def rewards_of(request: RewardRequest) -> tuple[list[Reward], Usage]:
    """One reward an item, in order, and what they cost."""
    assert not isinstance(request.reward, ModelReward), "no engine declares it yet, so it was not admitted"
    return await asyncio.to_thread(grade, request.reward, request.items), Usage()
