"""Divergences between two aligned distributions: (student_logp [.., S], teacher_logp [.., S]) -> [..], in nats.

Zero probabilities are meant: 0 log 0 = 0. Where a divergence is infinite its value is inf and its gradient zero, never
NaN. Gradients reach the student's entries only as far as they are positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.core.adaptive import ADAPTIVE
from tutelage.core.batch import log_probabilities
from tutelage.core.kl import floored, forward_kl, kl, mixture, reverse_kl

Divergence = Callable[[Tensor, Tensor], Tensor]


def jsd(student_logp: Tensor, teacher_logp: Tensor, beta: float = 0.5) -> Tensor:
    """beta KL(q || m) + (1 - beta) KL(p || m), m = beta q + (1 - beta) p, as in GKD (arXiv:2306.13649).

    The value vanishes at both ends; beta = 0 is therefore forward KL and beta = 1 reverse KL, the rescaled limits.
    """
    if beta == 0:
        return forward_kl(student_logp, teacher_logp)
    if beta == 1:
        return reverse_kl(student_logp, teacher_logp)
    mixed = mixture(teacher_logp, student_logp, beta)
    return beta * kl(teacher_logp, mixed) + (1 - beta) * kl(student_logp, mixed)


def tvd(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """Total variation, half the absolute difference: between 0 and 1. It has a kink, not a gradient, where p = q."""
    return 0.5 * (student_logp.exp() - teacher_logp.exp()).abs().sum(-1)


def skew_forward_kl(student_logp: Tensor, teacher_logp: Tensor, alpha: float = 0.1) -> Tensor:
    """KL(q || alpha q + (1 - alpha) p) (DistiLLM, arXiv:2402.03898): bounded by log(1 / alpha)."""
    return kl(teacher_logp, mixture(teacher_logp, student_logp, alpha) if alpha else student_logp)


def skew_reverse_kl(student_logp: Tensor, teacher_logp: Tensor, alpha: float = 0.1) -> Tensor:
    """KL(p || alpha p + (1 - alpha) q) (DistiLLM): bounded by log(1 / alpha)."""
    return kl(student_logp, mixture(student_logp, teacher_logp, alpha) if alpha else teacher_logp)


def alpha_divergence(student_logp: Tensor, teacher_logp: Tensor, alpha: float = 0.5) -> Tensor:
    """(sum q^alpha p^(1 - alpha) - 1) / (alpha (alpha - 1)): reverse KL at 0, forward KL at 1 (Amari).

    Summed entry by entry with the linear part of the generator taken out, so that no entry is negative. Where the sum
    leaves the range of its numbers it is inf.
    """
    if alpha == 0:
        return reverse_kl(student_logp, teacher_logp)
    if alpha == 1:
        return forward_kl(student_logp, teacher_logp)
    student, teacher = floored(student_logp), floored(teacher_logp)
    exponent = alpha * teacher + (1 - alpha) * student
    limit = 0.9 * math.log(torch.finfo(exponent.dtype).max)
    powers = exponent.clamp(max=limit).exp() - alpha * teacher.exp() - (1 - alpha) * student.exp()
    value = powers.sum(-1) / (alpha * (alpha - 1))
    return value.masked_fill((exponent > limit).any(-1), torch.inf)


def hellinger(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """Squared Hellinger distance, 1 - sum sqrt(p q): between 0 and 1."""
    return alpha_divergence(student_logp, teacher_logp, 0.5) / 4


def chi_square(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """Pearson's sum (q - p)^2 / p: heavier than forward KL where the student has too little."""
    return 2 * alpha_divergence(student_logp, teacher_logp, 2.0)


F_DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "tvd": tvd,
    "hellinger": hellinger,
    "chi_square": chi_square,
    "alpha": alpha_divergence,
    "skew_forward_kl": skew_forward_kl,
    "skew_reverse_kl": skew_reverse_kl,
}
DIVERGENCES: dict[str, Callable[..., Tensor]] = F_DIVERGENCES | ADAPTIVE


class Parameter(NamedTuple):
    """The one parameter of a divergence and the interval that it lies in, as a person reads it."""

    name: str
    inside: Callable[[float], bool]
    interval: str


def _is_order(value: float) -> bool:
    """Nearer to 0 or 1 the difference of two almost equal sums has no digits left."""
    away = round(min(abs(value), abs(1 - value)), 12)  # 1.001 is 0.001 away, whatever floats make of it
    return value in (0, 1) or (-1 <= value <= 2 and away >= 1e-3)


SKEW = Parameter("alpha", lambda value: 0 <= value < 1, "the skew lies from 0 to below 1")
PARAMETERS = {
    "jsd": Parameter("beta", lambda value: 0 <= value <= 1, "the teacher's weight in jsd lies between 0 and 1"),
    "alpha": Parameter("alpha", _is_order, "the order is 0, 1, or 0.001 away from both, in [-1, 2]"),
    "skew_forward_kl": SKEW,
    "skew_reverse_kl": SKEW,
    "akl": Parameter("head_mass", lambda value: 0 < value < 1, "the teacher's mass in the head lies between 0 and 1"),
    "todi": Parameter("slope", lambda value: 0 <= value <= 10, "the slope of the weight lies between 0 and 10"),
}


def measure(kind: str, **params: float) -> Divergence:
    """The divergence of that name with its parameters bound.

    Raises:
        ValueError: an unknown kind, a parameter that it does not have, or one out of range.
    """
    if kind not in DIVERGENCES:
        raise ValueError(f"unknown divergence {kind!r}; known are {', '.join(DIVERGENCES)}")
    for name, value in params.items():
        _check_parameter(kind, name, value)
    return partial(DIVERGENCES[kind], **params)


def _check_parameter(kind: str, name: str, value: float) -> None:
    known = PARAMETERS.get(kind)
    if known is None or name != known.name:
        has = f"its parameter is {known.name}" if known else "it has none"
        raise ValueError(f"divergence {kind!r} has no parameter {name!r}; {has}")
    if not known.inside(value):
        raise ValueError(f"{name} is {value}; {known.interval}")


def divergence(kind: str, student_logits: Tensor, teacher_logits: Tensor, **params: float) -> Tensor:
    """Nats per row [..] between two sets of full-vocabulary logits [.., V]; log-softmax in at least float32.

    Raises:
        ValueError: an unknown kind, a parameter out of range, or shapes that differ.
    """
    if student_logits.shape[-1] != teacher_logits.shape[-1]:
        raise ValueError(
            f"the student has {student_logits.shape[-1]} logits and the teacher {teacher_logits.shape[-1]}; "
            "cut both to the tokens that they share"
        )
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"the student's logits are {list(student_logits.shape)} and the teacher's {list(teacher_logits.shape)}; "
            "give one row of each for the same token"
        )
    return measure(kind, **params)(log_probabilities(student_logits), log_probabilities(teacher_logits))
