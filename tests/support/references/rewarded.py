"""What is learned from rewards of whole rollouts, alone or beside the teacher's signal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from references.token import PROMPTS, REWARDS, Reference, Token, kl


def group(rollout: int) -> list[float]:
    """The rewards of all answers to the prompt of this one."""
    return [reward for reward, prompt in zip(REWARDS, PROMPTS, strict=True) if prompt == PROMPTS[rollout]]


def grpo(rollout: int) -> float:
    return (REWARDS[rollout] - statistics.mean(group(rollout))) / statistics.stdev(group(rollout))


def dr_grpo(rollout: int) -> float:
    return REWARDS[rollout] - statistics.mean(group(rollout))


def rloo(rollout: int) -> float:
    """Against the mean of the others; here there is one other."""
    own = REWARDS[rollout]
    return own - (sum(group(rollout)) - own) / (len(group(rollout)) - 1)


def reinforce_plus_plus(rollout: int) -> float:
    return (REWARDS[rollout] - statistics.mean(REWARDS)) / statistics.stdev(REWARDS)


def ppo(token: Token, advantage: float, old: float) -> Tensor:
    """-min(rho A, clip(rho, 0.8, 1.2) A) with rho = p / exp(old)."""
    ratio = token.p[token.written] / math.exp(old)
    return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)


def rewarded(advantage: Callable[[int], float], anchor: float = 0.0) -> Reference:
    """PPO's surrogate, and so much of KL(p || ref)."""
    return lambda token: ppo(token, advantage(token.rollout), token.behaviour_logprob) + anchor * kl(token.p, token.ref)


def kdrl(token: Token) -> Tensor:
    """J_GRPO - beta k2 at beta 0.005, over beta."""
    k2 = 0.5 * (math.log(float(token.q[token.written])) + token.surprise) ** 2
    return k2 + ppo(token, grpo(token.rollout), token.behaviour_logprob) / 0.005


def rlad(token: Token) -> Tensor:
    """GRPO with sqrt(p_old q) below p; q at most 6 nats from p."""
    teacher = min(6.0, max(-6.0, token.log_ratio)) - token.surprise.item()
    return ppo(token, grpo(token.rollout), 0.5 * token.behaviour_logprob + 0.5 * teacher)


def luffy(token: Token) -> Tensor:
    """GRPO over own and foreign text; the foreign probability, against one of 1, is shaped by x / (x + 0.1)."""
    if not token.foreign:
        return ppo(token, grpo(token.rollout), token.behaviour_logprob)
    return -grpo(token.rollout) * token.p[token.written] / (token.p[token.written] + 0.1)


REWARDED: dict[str, Reference] = {
    "grpo": rewarded(grpo),
    "dr-grpo": rewarded(dr_grpo),
    "rloo": rewarded(rloo),
    "reinforce-plus-plus": rewarded(reinforce_plus_plus),
    "kdrl": kdrl,
    "rlad": rlad,
    "ovd": rewarded(grpo, anchor=0.01),
    "ropd": rewarded(grpo, anchor=0.01),
    "luffy": luffy,
}
