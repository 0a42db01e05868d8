"""Losses from the written token alone, for text that the student wrote, with R = log q(y) - log p(y).

    k1   -R             value unbiased for reverse KL. By backprop its gradient is grad log p, whatever the teacher
                        says, so it is offered only as an advantage: `reinforce` with `credit.advantage`
    k2   R^2 / 2        gradient unbiased for reverse KL; the value is biased
    k3   e^R - R - 1    value unbiased for reverse KL and never negative; gradient unbiased for FORWARD KL

So the table names each by the divergence whose gradient it has. Where R is infinite the value is inf, the gradient 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k2(log_ratio_R: Tensor) -> Tensor:
    """R^2 / 2."""
    finite_R = log_ratio_R.isfinite()
    safe_R = torch.where(finite_R, log_ratio_R, 0.0)
    return torch.where(finite_R, 0.5 * safe_R.square(), torch.inf)


def k3(log_ratio_R: Tensor) -> Tensor:
    """e^R - R - 1; inf where e^R overflows."""
    finite_R = log_ratio_R.isfinite() & log_ratio_R.detach().exp().isfinite()
    safe_R = torch.where(finite_R, log_ratio_R, 0.0)
    return torch.where(finite_R, safe_R.expm1() - safe_R, torch.inf)


ESTIMATORS = {"reverse_kl": k2, "forward_kl": k3}


def reinforce(advantage_R: Tensor, logp_R: Tensor) -> Tensor:
    """-A log p(y) with A detached: its gradient is that of REINFORCE; its value means nothing."""
    finite_R = advantage_R.isfinite() & logp_R.isfinite()
    safe_R = torch.where(finite_R, logp_R, 0.0)
    return torch.where(finite_R, -torch.where(finite_R, advantage_R, 0.0).detach() * safe_R, torch.inf)
