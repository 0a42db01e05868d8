"""Learning from one reward a rollout: advantages over rewards, and the surrogate that carries them to the tokens.

A rollout's advantage is that of each of its tokens, and the loss is the mean over all learned tokens of the step (token
mean, as in DAPO, arXiv:2503.14476): a long rollout weighs more than a short one. GRPO as published takes the mean of
each rollout first; that is not offered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Rewards of a group that are nearer to each other than this are equal: what is left is rounding.
EQUAL = 1e-6
# Nats beyond which a ratio is outside every clip; e to more would overflow on its way back.
FAR = 20.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How advantages reach the tokens. p: student, mu: who wrote the text, q: teacher.

    weight: of the surrogate in the loss, where a teacher's signal counts 1
    clip_below, clip_above: the ratio gains nothing outside [1 - below, 1 + above] (PPO, arXiv:1707.06347)
    teacher_share: of log q in the policy that the ratio is taken against, mu^(1 - share) q^share, as in TRRD
        (RLAD, arXiv:2602.22495, whose a is 1 - share); 0 is GRPO
    shaping: gamma of p / (p + gamma), the ratio of text that no student wrote (LUFFY, arXiv:2504.14945)

    Raises:
        ValueError: out of range.
    """

    weight: float = 1.0
    clip_below: float = 0.2
    clip_above: float = 0.2
    teacher_share: float = 0.0
    shaping: float = 0.1

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"weight is {self.weight}; give one above 0")
        if not (0 < self.clip_below < 1 and self.clip_above > 0):
            raise ValueError(f"the clip is {self.clip_below}, {self.clip_above}; below lies in (0, 1), above over 0")
        if not 0 <= self.teacher_share < 1:
            raise ValueError(f"teacher_share is {self.teacher_share}; it lies from 0 to below 1")
        if not self.shaping > 0:
            raise ValueError(f"shaping is {self.shaping}; give one above 0")


def advantages(kind: str, reward_B: Tensor, group_B: Tensor) -> Tensor:
    """Advantages [B] of rollouts by their rewards; group_B says which were answers to one prompt.

    A reward that is NaN was not given: its advantage is NaN, and it counts in no mean, deviation or number. Where the
    rewards that are compared are all equal, or one stands alone, the advantage is exactly 0.

    Raises:
        ValueError: an unknown kind, a reward that is infinite, or shapes that differ.
    """
    if kind not in ADVANTAGES:
        raise ValueError(f"unknown advantage {kind!r}; known are {', '.join(ADVANTAGES)}")
    if reward_B.shape != group_B.shape or reward_B.isinf().any():
        raise ValueError("give one finite reward and one group for each rollout; NaN where there is none")
    given_B = ~reward_B.isnan()
    advantage_B = torch.full_like(reward_B, torch.nan, dtype=torch.float64)
    advantage_B[given_B] = ADVANTAGES[kind](reward_B[given_B].double(), group_B[given_B])
    return advantage_B


def equal_groups(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """For each group that has a reward, whether all its rewards are equal, so that it teaches nothing [G]."""
    given_B = ~reward_B.isnan()
    _, index_B = group_B[given_B].unique(return_inverse=True)
    return _spread(reward_B[given_B].double(), index_B) <= EQUAL


def group_normalised(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """(r - mean) / deviation over the group, n - 1 below it (GRPO, arXiv:2402.03300, as verl and TRL compute it)."""
    _, index_B = group_B.unique(return_inverse=True)
    centred_B = _centred(reward_B, index_B)
    degrees_G = (_sum(torch.ones_like(reward_B), index_B) - 1).clamp(min=1)
    deviation_G = (_sum(centred_B.square(), index_B) / degrees_G).sqrt()
    return torch.where(centred_B == 0, 0.0, centred_B / deviation_G[index_B])


def group_centred(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """r - mean over the group: no group counts more because its rewards lie close (Dr. GRPO, arXiv:2503.20783)."""
    return _centred(reward_B, group_B.unique(return_inverse=True)[1])


def leave_one_out(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """r - mean of the others in the group (RLOO, arXiv:2402.14740)."""
    _, index_B = group_B.unique(return_inverse=True)
    count_B = _sum(torch.ones_like(reward_B), index_B)[index_B]
    return _centred(reward_B, index_B) * count_B / (count_B - 1).clamp(min=1)


def batch_normalised(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """(r - mean) / deviation over the whole step, groups or none (REINFORCE++, arXiv:2501.03262)."""
    return group_normalised(reward_B, torch.zeros_like(group_B))


ADVANTAGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "group_normalised": group_normalised,
    "group_centred": group_centred,
    "leave_one_out": leave_one_out,
    "batch_normalised": batch_normalised,
}


def surrogate(
    advantage_R: Tensor, logp_R: Tensor, behaviour_R: Tensor | None, teacher_logp_R: Tensor | None, outcome: Outcome
) -> Tensor:
    """What is minimised for each token [R], by whose text it is.

    A student's:  -min(rho A, clip(rho) A),  rho = p / (mu^(1 - share) q^share); without a share PPO's p / mu
    Nobody's (mu is NaN):  -A p / (p + gamma), unclipped, as LUFFY takes a teacher's text, whose mu it sets to 1

    Raises:
        ValueError: a share of the teacher without its log-probabilities.
    """
    behaviour_R = torch.full_like(logp_R, torch.nan) if behaviour_R is None else behaviour_R
    foreign_R = behaviour_R.isnan()
    anchor_R = torch.where(foreign_R, logp_R.detach(), behaviour_R)
    if outcome.teacher_share:
        if teacher_logp_R is None:
            raise ValueError("a ratio with a share of the teacher needs its log-probabilities of the written tokens")
        anchor_R = anchor_R.lerp(teacher_logp_R, outcome.teacher_share)
    ratio_R = (logp_R - anchor_R).clamp(-FAR, FAR).exp()
    bounded_R = ratio_R.clamp(1 - outcome.clip_below, 1 + outcome.clip_above)
    own_R = torch.minimum(ratio_R * advantage_R, bounded_R * advantage_R)
    p_R = logp_R.exp()
    return -torch.where(foreign_R, advantage_R * p_R / (p_R + outcome.shaping), own_R)


def clipped(advantage_R: Tensor, ratio_R: Tensor, outcome: Outcome) -> Tensor:
    """True where the clip stops the token's gradient."""
    high_R = (advantage_R > 0) & (ratio_R > 1 + outcome.clip_above)
    return high_R | ((advantage_R < 0) & (ratio_R < 1 - outcome.clip_below))


def _sum(value_B: Tensor, index_B: Tensor) -> Tensor:
    groups = int(index_B.max()) + 1 if len(index_B) else 0
    return value_B.new_zeros(groups).index_add_(0, index_B, value_B)


def _spread(reward_B: Tensor, index_B: Tensor) -> Tensor:
    groups = int(index_B.max()) + 1 if len(index_B) else 0
    least_G = reward_B.new_full((groups,), torch.inf).scatter_reduce_(0, index_B, reward_B, "amin")
    most_G = reward_B.new_full((groups,), -torch.inf).scatter_reduce_(0, index_B, reward_B, "amax")
    return most_G - least_G


def _centred(reward_B: Tensor, index_B: Tensor) -> Tensor:
    """r - mean over the group; exactly 0 where all are equal."""
    mean_G = _sum(reward_B, index_B) / _sum(torch.ones_like(reward_B), index_B)
    differs_B = (_spread(reward_B, index_B) > EQUAL)[index_B]
    return torch.where(differs_B, reward_B - mean_G[index_B], 0.0)
