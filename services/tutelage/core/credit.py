"""Advantages of written tokens, without gradients."""

from __future__ import annotations

from torch import Tensor


def advantage(student_logp_R: Tensor, teacher_logp_R: Tensor) -> Tensor:
    """log q(y) - log p(y): each token answers for itself (gamma = 0), not for what follows it."""
    return (teacher_logp_R - student_logp_R).detach()


def constant_penalty(student_logp_R: Tensor, penalty: float, max_probability: float) -> Tensor:
    """The teacher-free control: -penalty where p(y) <= max_probability, else 0."""
    return -penalty * (student_logp_R.detach().exp() <= max_probability).to(student_logp_R.dtype)
