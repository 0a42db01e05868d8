"""Sums of losses, each on its own tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from references.token import Reference, Token, kl, top


def k1(token: Token) -> Tensor:
    """-sg(R) log p(y), whose gradient is that of reverse KL."""
    return token.log_ratio * token.surprise


def truncated_forward_kl(token: Token, k: int) -> Tensor:
    """Of the teacher's most probable tokens: it is renormalised there, the student is not."""
    kept = top(token.q, k)
    q = token.q[kept] / token.q[kept].sum()
    return kl(q, token.p[kept])


def eopd(token: Token) -> Tensor:
    """k1, and forward KL added where the teacher's entropy is above tau, here 1 nat."""
    entropy = -(token.q * token.q.log()).sum().item()
    return k1(token) + (truncated_forward_kl(token, 16) if entropy > 1.0 else 0.0)


def aopd(token: Token) -> Tensor:
    """Reinforced where the teacher finds the token likelier; elsewhere pulled to the teacher's most probable."""
    return k1(token) if token.log_ratio > 0 else truncated_forward_kl(token, 16)


def reopold(token: Token) -> Tensor:
    """In its first phase: what lies below the floor of -2.2 nats is dropped."""
    return token.log_ratio * token.surprise if token.log_ratio > -2.2 else torch.zeros_like(token.surprise)


def minillm(token: Token) -> Tensor:
    """The exact divergence of this step, and the mean R of the steps that follow as the token's advantage."""
    later = sum(token.following) / len(token.following) if token.following else 0.0
    return kl(token.p, token.q) + later * token.surprise


def distillm_2(token: Token) -> Tensor:
    """Skewed forward KL on the teacher's text, skewed reverse KL on the student's."""
    p, q = token.p, token.q
    return kl(q, 0.1 * q + 0.9 * p) if token.foreign else kl(p, 0.9 * q + 0.1 * p)


def stable_opd(token: Token) -> Tensor:
    """Reverse KL on own text, 0.1 x cross-entropy on the golden trace, 0.01 x KL(p || ref) on either."""
    signal = 0.1 * token.surprise if token.foreign else kl(token.p, token.q)
    return signal + 0.01 * kl(token.p, token.ref)


SUMMED: dict[str, Reference] = {
    "minillm": minillm,
    "eopd": eopd,
    "aopd": aopd,
    "reopold": reopold,
    "distillm-2": distillm_2,
    "stable-opd": stable_opd,
}
