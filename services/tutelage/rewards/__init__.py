"""Rewards for completions: what `/v1/reward` serves and evaluation counts."""

from tutelage.rewards.asking import rewards_of

__all__ = ["rewards_of"]
