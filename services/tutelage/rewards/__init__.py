"""Rewards for completions: what `/v1/reward` serves and evaluation counts."""

from tutelage.rewards.asking import judge_rewards
from tutelage.rewards.grading import Graders, grade

__all__ = ["Graders", "grade", "judge_rewards"]
