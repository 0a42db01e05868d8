"""Sums of losses, each on its own tokens, and losses of pairs of texts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from references.token import Reference, Token, kl, top

# What the first step of `distillm-2` is taken to have told.
FIRST_GAPS = {"text_gap_forward": 0.05, "text_gap_reverse": 0.05}


def k1(token: Token) -> Tensor:
    """-sg(R) log p(y), whose gradient is that of reverse KL."""
    return token.log_ratio * token.surprise


def truncated_forward_kl(token: Token, k: int) -> Tensor:
    """Of the teacher's most probable tokens: it is renormalised there, the student is not."""
    kept = top(token.q, k)
    q = token.q[kept] / token.q[kept].sum()
    return kl(q, token.p[kept])


def eopd(token: Token) -> Tensor:
    """k1, and forward KL added where the teacher's entropy is above tau, here 0.8 nats."""
    entropy = -(token.q * token.q.log()).sum().item()
    return k1(token) + (truncated_forward_kl(token, 16) if entropy > 0.8 else 0.0)


def aopd(token: Token) -> Tensor:
    """Reinforced where the teacher finds the token likelier; elsewhere pulled to the teacher's most probable."""
    return k1(token) if token.log_ratio > 0 else truncated_forward_kl(token, 16)


def reopold(token: Token) -> Tensor:
    """In its first phase: what lies below the floor of -2.2 nats is dropped."""
    return token.log_ratio * token.surprise if token.log_ratio > -2.2 else torch.zeros_like(token.surprise)


def reopold_later(token: Token) -> Tensor:
    """In its second phase: of the fifth of each text with the student's highest entropy, R no lower than the floor.

    The mean over these is five times theirs in the mean over all.
    """
    own = [other for other in token.learned if other.rollout == token.rollout]
    more = sum(_entropy(other) > _entropy(token) for other in own)
    kept = 5.0 * max(token.log_ratio, -2.2) * token.surprise
    return kept if more < 0.2 * len(own) else torch.zeros_like(token.surprise)


def _entropy(token: Token) -> float:
    return -(token.p * token.p.log()).sum().item()


def minillm(token: Token) -> Tensor:
    """By p/mu, at most 1 / (1 - 0.2): the exact divergence of this step, and the mean R of those after it."""
    later = sum(token.following) / len(token.following) if token.following else 0.0
    return min(token.ratio, 1.25) * (kl(token.p, token.q) + later * token.surprise)


def dpkd(token: Token) -> Tensor:
    """-log sigmoid of how far the mean log p/q of rollout 2i is above that of 2i + 1; carried by each token."""

    def mean(rollout: int) -> Tensor:
        ratios = [t.p[t.written].log() - t.q[t.written].log() for t in token.learned if t.rollout == rollout]
        return torch.stack(ratios).mean()

    better = token.rollout - token.rollout % 2
    margin = 0.1 * (mean(better) - mean(better + 1))
    return -(1 / (1 + (-margin).exp())).log()


def distillm_2(token: Token) -> Tensor:
    """Skewed forward KL on the teacher's text, skewed reverse KL on the student's."""
    p, q = token.p, token.q
    return kl(q, 0.1 * q + 0.9 * p) if token.foreign else kl(p, 0.9 * q + 0.1 * p)


def distillm_2_later(token: Token) -> Tensor:
    """With a of each text, by how far it is from `FIRST_GAPS`, the mean of the first step."""
    p, q = token.p, token.q
    own = [t for t in token.learned if t.rollout == token.rollout]
    teachers, students = (math.exp(sum(side) / len(own)) for side in zip(*map(_written, own), strict=True))
    gap = teachers - students if token.foreign else students - teachers
    a = min(
        0.1, max(0.01, 1 - 0.9 * FIRST_GAPS["text_gap_forward" if token.foreign else "text_gap_reverse"] / (gap + 1e-5))
    )
    return kl(q, a * q + (1 - a) * p) if token.foreign else kl(p, (1 - a) * q + a * p)


def _written(token: Token) -> tuple[float, float]:
    """log q and log p of it."""
    return math.log(float(token.q[token.written])), math.log(float(token.p.detach()[token.written]))


def stable_opd(token: Token) -> Tensor:
    """Reverse KL on own text, 0.1 x cross-entropy on the golden trace, 0.01 x KL(p || ref) on either."""
    signal = 0.1 * token.surprise if token.foreign else kl(token.p, token.q)
    return signal + 0.01 * kl(token.p, token.ref)


# Of what changes in the run: the first step of its later loss, and that.
LATER: dict[str, tuple[int, Reference]] = {"reopold": (50, reopold_later), "distillm-2": (1, distillm_2_later)}
SUMMED: dict[str, Reference] = {
    "minillm": minillm,
    "eopd": eopd,
    "aopd": aopd,
    "reopold": reopold,
    "distillm-2": distillm_2,
    "dpkd": dpkd,
    "stable-opd": stable_opd,
}
