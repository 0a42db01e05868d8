"""The advantage that descends an f-divergence: w_f(u) = -f(u) + u f'(u), u = q / p of the written token.

For D_f = E_p[f(u)], grad D_f = E_p[(f(u) - u f'(u)) grad log p] (OPD+, arXiv:2606.01039); -f alone, without the second
term, descends something else, save for reverse KL. Each is given less its constant w_f(1), a baseline that changes no
gradient in expectation: the advantage is 0 where student and teacher agree. Each is a function of log u, exact at
log u = -inf too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def forward_kl(log_ratio: Tensor) -> Tensor:
    """f = u log u: u."""
    return log_ratio.expm1()


def reverse_kl(log_ratio: Tensor) -> Tensor:
    """f = -log u: log u - 1."""
    return log_ratio


def jsd(log_ratio: Tensor, beta: float = 0.5) -> Tensor:
    """f = beta u log(u / m) - (1 - beta) log m, m = beta u + 1 - beta: (1 - beta) log m; KL at both ends."""
    if beta in (0, 1):
        return reverse_kl(log_ratio) if beta else forward_kl(log_ratio)
    return (1 - beta) * _log_mixture(log_ratio, beta)


def tvd(log_ratio: Tensor) -> Tensor:
    """f = |u - 1| / 2: sign(u - 1) / 2."""
    return 0.5 * log_ratio.sign()


def skew_forward_kl(log_ratio: Tensor, alpha: float = 0.1) -> Tensor:
    """f = u log(u / m), m = alpha u + 1 - alpha: (1 - alpha) u / m."""
    return (1 - alpha) * (log_ratio - _log_mixture(log_ratio, alpha)).expm1()


def skew_reverse_kl(log_ratio: Tensor, alpha: float = 0.1) -> Tensor:
    """f = -log m, m = alpha + (1 - alpha) u: log m - (1 - alpha) u / m."""
    log_m = _log_mixture(log_ratio, 1 - alpha)
    return log_m - (1 - alpha) * (log_ratio - log_m).expm1() if alpha else log_ratio


def alpha_divergence(log_ratio: Tensor, alpha: float = 0.5) -> Tensor:
    """f = (u^alpha - alpha u - 1 + alpha) / (alpha (alpha - 1)): u^alpha / alpha."""
    return (alpha * log_ratio).expm1() / alpha if alpha else log_ratio


def hellinger(log_ratio: Tensor) -> Tensor:
    """f = (1 - sqrt u)^2 / 2: sqrt(u) / 2."""
    return alpha_divergence(log_ratio, 0.5) / 4


def chi_square(log_ratio: Tensor) -> Tensor:
    """f = (u - 1)^2: u^2."""
    return 2 * alpha_divergence(log_ratio, 2.0)


def _log_mixture(log_ratio: Tensor, weight: float) -> Tensor:
    """log(weight u + 1 - weight), 0 <= weight <= 1."""
    if weight in (0, 1):
        return log_ratio if weight else torch.zeros_like(log_ratio)
    return torch.logaddexp(log_ratio + math.log(weight), torch.full_like(log_ratio, math.log1p(-weight)))


F_WEIGHTS: dict[str, Callable[..., Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "tvd": tvd,
    "skew_forward_kl": skew_forward_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "hellinger": hellinger,
    "chi_square": chi_square,
    "alpha": alpha_divergence,
}
