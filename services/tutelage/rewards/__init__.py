"""Rewards for completions: what `/v1/reward` serves and evaluation counts."""

from tutelage.rewards.asking import judge_rewards
from tutelage.rewards.graders import Graders

__all__ = ["Graders", "judge_rewards"]
