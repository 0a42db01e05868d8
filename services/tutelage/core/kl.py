"""Entropy, KL divergence and mixtures of log-probabilities, safe where a probability is zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def floored(logp: Tensor) -> Tensor:
    """-inf as a finite number whose exp is zero, so that no product or difference with it is NaN."""
    return logp.clamp(min=torch.finfo(logp.dtype).min / 4)


def entropy(logp_RV: Tensor) -> Tensor:
    """Nats per row."""
    return -(logp_RV.exp() * floored(logp_RV)).sum(-1)


def kl(first_logp: Tensor, second_logp: Tensor) -> Tensor:
    """KL(first || second) over the last axis."""
    first, second = floored(first_logp), floored(second_logp)
    mass = first.exp()
    infinite = ((mass > 0) & (second_logp == -torch.inf)).any(-1)
    return (mass * (first - second)).sum(-1).masked_fill(infinite, torch.inf)


def mixture(first_logp: Tensor, second_logp: Tensor, weight: float | Tensor) -> Tensor:
    """log(weight * first + (1 - weight) * second), 0 < weight < 1."""
    if isinstance(weight, Tensor):
        log_weight, log_rest = weight.log(), (-weight).log1p()
    else:
        log_weight, log_rest = math.log(weight), math.log1p(-weight)
    return torch.logaddexp(floored(first_logp) + log_weight, floored(second_logp) + log_rest)


def forward_kl(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """KL(q || p): covers the teacher's modes."""
    return kl(teacher_logp, student_logp)


def reverse_kl(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """KL(p || q): seeks one of the teacher's modes."""
    return kl(student_logp, teacher_logp)
