"""Divergences whose direction follows the gap between student and teacher, entry by entry; and one on log-ratios.

The weights are detached: they choose what is learned, they are not learned. None of these is an f-divergence, so the
coarsened value (a tail bucket) is no bound of the full one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tutelage.core.kl import floored, forward_kl, reverse_kl


def akl(student_logp: Tensor, teacher_logp: Tensor, head_mass: float = 0.5) -> Tensor:
    """(g_h KL(q || p) + g_t KL(p || q)) / (g_h + g_t), g the gap sum |q - p| on head and tail (arXiv:2404.02657).

    The head is the teacher's most probable tokens until their mass reaches `head_mass`, the first always.
    """
    forward, reverse = forward_kl(student_logp, teacher_logp), reverse_kl(student_logp, teacher_logp)
    with torch.no_grad():
        teacher, order = teacher_logp.exp().sort(-1, descending=True)
        gap = (student_logp.exp().gather(-1, order) - teacher).abs()
        head = teacher.cumsum(-1) - teacher < head_mass
        head_gap, whole = gap.where(head, 0.0).sum(-1), gap.sum(-1)
        weight = torch.where(whole > 0, head_gap / whole.clamp(min=torch.finfo(whole.dtype).tiny), 0.5)
    return weighted(weight, forward) + weighted(1 - weight, reverse)


def todi(student_logp: Tensor, teacher_logp: Tensor, slope: float = 1.0) -> Tensor:
    """sum a q log(q/p) + (1 - a) p log(p/q), a = sigmoid(slope log(q/p)) detached (arXiv:2505.16297).

    Forward KL weighs most where the student has too little. At slope 1 the value is sum (q - p) log(q/p).
    """
    student, teacher = floored(student_logp), floored(teacher_logp)
    log_ratio = teacher - student
    weight = (slope * log_ratio).detach().sigmoid()
    entries = log_ratio * (weight * teacher.exp() - (1 - weight) * student.exp())
    apart = (student_logp.isneginf() != teacher_logp.isneginf()) & (weight * teacher.exp() + student.exp() > 0)
    return entries.masked_fill(apart, 0.0).sum(-1).masked_fill(apart.any(-1), torch.inf)


def concrete_score(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """sum_vw q_v q_w (d_v - d_w)^2 / 2 with d = log p - log q: squared differences of logit differences, weighted by q.

    That is the variance of d under the teacher. The softmax cancels in each difference (arXiv:2509.25837). In nats^2.
    """
    teacher = teacher_logp.exp()
    difference = torch.where(teacher > 0, floored(student_logp) - floored(teacher_logp), 0.0)
    infinite = (teacher > 0) & student_logp.isneginf()
    difference = difference.masked_fill(infinite, 0.0)
    mean = (teacher * difference).sum(-1, keepdim=True)
    return (teacher * (difference - mean).square()).sum(-1).masked_fill(infinite.any(-1), torch.inf)


ADAPTIVE: dict[str, Callable[..., Tensor]] = {"akl": akl, "todi": todi, "concrete_score": concrete_score}


def weighted(weight: Tensor, value: Tensor) -> Tensor:
    """weight * value, where 0 * inf = 0."""
    return torch.where(weight > 0, weight * value, 0.0)
