"""Full-vocabulary divergences with their gradients written out, for `fused`.

The gradient of a divergence D(p, q) with respect to the student's logits is p * (dD/dp - sum(p * dD/dp)), so each row
of the table gives the value and the pull p * dD/dp; a constant in dD/dp cancels and is left out. Values and zeros are
those of `divergences`: where a divergence is infinite its value is inf. All of the pair but `p` may be overwritten.
Its logarithms lie where the logits were.
Where zeros are not looked for, a value that they would change is NaN or inf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.core.divergences import floored


class Buffers(NamedTuple):
    """Room for a block of rows [B, V], used again for every block: fresh memory costs more than what is done in it."""

    p: Tensor
    q: Tensor
    spare: Tensor

    def first(self, rows: int) -> Buffers:
        return self if rows == len(self.p) else Buffers(*(x[:rows] for x in self))


class Pair(NamedTuple):
    """Both sides of a block of rows [B, V]; *_absent: exact zeros, whose logarithms are floored, None if ignored."""

    logp: Tensor
    logq: Tensor
    p: Tensor
    q: Tensor
    spare: Tensor
    p_absent: Tensor | None = None
    q_absent: Tensor | None = None


class Pulled(NamedTuple):
    """Values of a block of rows, and weight * pull = p * dD/dp; the pull's sums over the rows are `total_B`."""

    value_B: Tensor
    pull_BV: Tensor
    total_B: Tensor
    weight: float


Pull = Callable[[Pair], Pulled]


def paired(
    student_logits_BV: Tensor, teacher_logits_BV: Tensor, temperature: float, buffers: Buffers, *, zeros: bool
) -> Pair:
    """Both distributions of a block of rows; zeros: whether exact zeros are looked for.

    Log-probabilities overwrite the logits: so much less passes through a processor's caches.
    """
    p, q, spare = buffers.first(len(student_logits_BV))
    logp, logq = (tempered_logp_(logits, temperature) for logits in (student_logits_BV, teacher_logits_BV))
    torch.exp(logp, out=p)
    torch.exp(logq, out=q)
    if not zeros:
        return Pair(logp, logq, p, q, spare)
    return Pair(floored(logp), floored(logq), p, q, spare, logp == -torch.inf, logq == -torch.inf)


def tempered_logp_(logits_BV: Tensor, temperature: float) -> Tensor:
    if temperature != 1:
        logits_BV.div_(temperature)
    return torch.log_softmax(logits_BV, -1, out=logits_BV)


def through_softmax(pulled: Pulled, pair: Pair, into_BV: Tensor) -> None:
    """The gradient with respect to the (tempered) logits over the weight, zero where the value is infinite."""
    torch.addcmul(pulled.pull_BV, pair.p, pulled.total_B[:, None], value=-1, out=into_BV)
    if pair.p_absent is not None:
        into_BV.masked_fill_(pulled.value_B.isposinf()[:, None], 0.0)


def infinite_at(value_B: Tensor, mass: Tensor, absent: Tensor | None) -> Tensor:
    """The value, inf where there is mass at what the other distribution lacks."""
    return value_B if absent is None else value_B.masked_fill((absent & (mass > 0)).any(-1), torch.inf)


def forward_kl(pair: Pair) -> Pulled:
    """KL(q || p)."""
    value_B = pair.logq.sub_(pair.logp).mul_(pair.q).sum(-1)
    return Pulled(infinite_at(value_B, pair.q, pair.p_absent), pair.q, pair.q.sum(-1), -1)


def reverse_kl(pair: Pair) -> Pulled:
    """KL(p || q)."""
    pull_BV = pair.logp.sub_(pair.logq).mul_(pair.p)
    total_B = pull_BV.sum(-1)
    return Pulled(infinite_at(total_B, pair.p, pair.q_absent), pull_BV, total_B, 1)


def mixed(pair: Pair, teacher_weight: float) -> Tensor:
    """weight * q + (1 - weight) * p, kept above zero where zeros are looked for."""
    mixture = torch.lerp(pair.p, pair.q, teacher_weight, out=pair.spare)
    return mixture if pair.p_absent is None else mixture.clamp_(min=torch.finfo(mixture.dtype).tiny)


def jsd(pair: Pair, beta: float = 0.5) -> Pulled:
    """beta KL(q || m) + (1 - beta) KL(p || m), m = beta q + (1 - beta) p; forward and reverse KL at the two ends."""
    if beta in (0, 1):
        return reverse_kl(pair) if beta else forward_kl(pair)
    log_mixed = mixed(pair, beta).log_()
    teacher_B = pair.logq.sub_(log_mixed).mul_(pair.q).sum(-1)
    pull_BV = pair.logp.sub_(log_mixed).mul_(pair.p)
    total_B = pull_BV.sum(-1)
    return Pulled(beta * teacher_B + (1 - beta) * total_B, pull_BV, total_B, 1 - beta)


def tvd(pair: Pair) -> Pulled:
    """Half the absolute difference."""
    difference = torch.sub(pair.p, pair.q, out=pair.spare)
    value_B = 0.5 * torch.abs(difference, out=pair.logq).sum(-1)
    pull_BV = difference.sign_().mul_(pair.p)
    return Pulled(value_B, pull_BV, pull_BV.sum(-1), 0.5)


def skew_forward_kl(pair: Pair, alpha: float = 0.1) -> Pulled:
    """KL(q || alpha q + (1 - alpha) p)."""
    if not alpha:
        return forward_kl(pair)
    mixture = mixed(pair, alpha)
    value_B = pair.logq.sub_(torch.log(mixture, out=pair.logp)).mul_(pair.q).sum(-1)
    pull_BV = pair.q.div_(mixture).mul_(pair.p)
    return Pulled(value_B, pull_BV, pull_BV.sum(-1), alpha - 1)


def skew_reverse_kl(pair: Pair, alpha: float = 0.1) -> Pulled:
    """KL(p || alpha p + (1 - alpha) q)."""
    if not alpha:
        return reverse_kl(pair)
    mixture = mixed(pair, 1 - alpha)
    log_ratio = pair.logp.sub_(torch.log(mixture, out=pair.logq))
    value_B = torch.mul(pair.p, log_ratio, out=pair.logq).sum(-1)
    pull_BV = log_ratio.sub_(torch.div(pair.p, mixture, out=mixture), alpha=alpha).mul_(pair.p)
    return Pulled(value_B, pull_BV, pull_BV.sum(-1), 1)


PULLS: dict[str, Callable[..., Pulled]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "tvd": tvd,
    "skew_forward_kl": skew_forward_kl,
    "skew_reverse_kl": skew_reverse_kl,
}
