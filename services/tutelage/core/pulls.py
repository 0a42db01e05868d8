"""Full-vocabulary divergences with their gradients written out, for `fused`.

The gradient of a divergence D(p, q) with respect to the student's logits is p * (dD/dp - sum(p * dD/dp)), so each row
of the table gives the value and the pull p * dD/dp; a constant in dD/dp cancels and is left out. Values and zeros are
those of `divergences`: where a divergence is infinite its value is inf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.core.divergences import floored


class Pair(NamedTuple):
    """Both sides of a block of rows [B, V], with floored logarithms; *_absent: exact zeros, None if there are none."""

    logp: Tensor
    logq: Tensor
    p: Tensor
    q: Tensor
    p_absent: Tensor | None
    q_absent: Tensor | None


Pull = Callable[[Pair], tuple[Tensor, Tensor]]


def paired(student_logits_BV: Tensor, teacher_logits_BV: Tensor, temperature: float) -> Pair:
    """Both distributions of a block of rows."""
    if temperature != 1:
        student_logits_BV, teacher_logits_BV = student_logits_BV / temperature, teacher_logits_BV / temperature
    logp, logq = student_logits_BV.log_softmax(-1), teacher_logits_BV.log_softmax(-1)
    p, q = student_logits_BV.softmax(-1), teacher_logits_BV.softmax(-1)  # cheaper than exp of the logarithms
    if torch.minimum(logp.amin(), logq.amin()) > -torch.inf:
        return Pair(logp, logq, p, q, None, None)
    return Pair(floored(logp), floored(logq), p, q, logp == -torch.inf, logq == -torch.inf)


def through_softmax(pull_BV: Tensor, value_B: Tensor, p_BV: Tensor) -> Tensor:
    """The gradient with respect to the (tempered) logits, zero where the value is infinite; overwrites the pull."""
    gradient_BV = pull_BV.addcmul_(p_BV, pull_BV.sum(-1, keepdim=True), value=-1)
    infinite_B = value_B.isposinf()
    return gradient_BV.masked_fill_(infinite_B[:, None], 0.0) if infinite_B.any() else gradient_BV


def dot(one: Tensor, other: Tensor) -> Tensor:
    """Sum of products over the last axis."""
    return torch.linalg.vecdot(one, other)


def kl(mass: Tensor, log_ratio: Tensor, absent: Tensor | None) -> Tensor:
    """KL of `mass` to the distribution that is zero where `absent`."""
    value = dot(mass, log_ratio)
    return value if absent is None else value.masked_fill((absent & (mass > 0)).any(-1), torch.inf)


def forward_kl(pair: Pair) -> tuple[Tensor, Tensor]:
    """KL(q || p)."""
    return kl(pair.q, pair.logq - pair.logp, pair.p_absent), -pair.q


def reverse_kl(pair: Pair) -> tuple[Tensor, Tensor]:
    """KL(p || q)."""
    log_ratio = pair.logp - pair.logq
    return kl(pair.p, log_ratio, pair.q_absent), log_ratio.mul_(pair.p)


def mixed(pair: Pair, teacher_weight: float) -> Tensor:
    """weight * q + (1 - weight) * p, kept above zero."""
    return pair.p.lerp(pair.q, teacher_weight).clamp_(min=torch.finfo(pair.p.dtype).tiny)


def jsd(pair: Pair, beta: float = 0.5) -> tuple[Tensor, Tensor]:
    """beta KL(q || m) + (1 - beta) KL(p || m), m = beta q + (1 - beta) p; forward and reverse KL at the two ends."""
    if beta in (0, 1):
        return reverse_kl(pair) if beta else forward_kl(pair)
    log_mixed = mixed(pair, beta).log_()
    value = beta * dot(pair.q, pair.logq - log_mixed)
    pull = torch.sub(pair.logp, log_mixed, out=log_mixed).mul_(pair.p).mul_(1 - beta)
    return value + pull.sum(-1), pull


def tvd(pair: Pair) -> tuple[Tensor, Tensor]:
    """Half the absolute difference."""
    difference = pair.p - pair.q
    return 0.5 * difference.abs().sum(-1), difference.sign_().mul_(pair.p).mul_(0.5)


def skew_forward_kl(pair: Pair, alpha: float = 0.1) -> tuple[Tensor, Tensor]:
    """KL(q || alpha q + (1 - alpha) p)."""
    if not alpha:
        return forward_kl(pair)
    mixture = mixed(pair, alpha)
    value = dot(pair.q, pair.logq - mixture.log())
    return value, (pair.q / mixture).mul_(pair.p).mul_(alpha - 1)


def skew_reverse_kl(pair: Pair, alpha: float = 0.1) -> tuple[Tensor, Tensor]:
    """KL(p || alpha p + (1 - alpha) q)."""
    if not alpha:
        return reverse_kl(pair)
    mixture = mixed(pair, 1 - alpha)
    log_ratio = pair.logp - mixture.log()
    return dot(pair.p, log_ratio), log_ratio.sub_(pair.p / mixture, alpha=alpha).mul_(pair.p)


PULLS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "tvd": tvd,
    "skew_forward_kl": skew_forward_kl,
    "skew_reverse_kl": skew_reverse_kl,
}
