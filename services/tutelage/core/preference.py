"""A preference between two texts of one prompt, with the teacher as the reference (DPKD, arXiv:2406.19774, equation 9).

    L = -log sigmoid(m),    m = beta (mean_t log p/q of the preferred - mean_t log p/q of the other)

A pair is rollouts 2i, the preferred, and 2i + 1. Each of its n tokens carries L, so that the loss is the mean over
tokens as everywhere; a token's pull is n dL / dlog p(y_t), computed over whole pairs before the chunks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Preferred(NamedTuple):
    """Of each row [R]: the loss of its pair, inf where infinite or undefined, and the advantage that descends it."""

    loss_R: Tensor
    advantage_R: Tensor


def whole_pairs(rollout_R: Tensor, kept_R: Tensor) -> Tensor:
    """True for the rows [R] of texts whose partner has rows that are kept."""
    return torch.isin(rollout_R, rollout_R[kept_R] ^ 1)


def preferred(log_ratio_R: Tensor, rollout_R: Tensor, beta: float) -> Preferred:
    """From log p - log q of the written tokens, nats. Every pair has rows of both its texts."""
    texts, index_R = rollout_R.unique(return_inverse=True)
    count_B = torch.bincount(index_R, minlength=len(texts)).to(log_ratio_R.dtype)
    mean_B = log_ratio_R.new_zeros(len(texts)).index_add_(0, index_R, log_ratio_R) / count_B
    margin_P = beta * (mean_B[0::2] - mean_B[1::2])
    loss_P = -functional.logsigmoid(margin_P).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    pull_P = (beta * torch.sigmoid(-margin_P) * (count_B[0::2] + count_B[1::2])).nan_to_num(nan=0.0)
    pull_B = torch.stack([pull_P, -pull_P], dim=1).flatten() / count_B
    return Preferred(loss_P.repeat_interleave(2)[index_R], pull_B[index_R])
