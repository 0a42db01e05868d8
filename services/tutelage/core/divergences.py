"""Divergences between two aligned distributions: (student_logp [.., S], teacher_logp [.., S]) -> [..], in nats.

Zero probabilities are meant: 0 log 0 = 0. Where a divergence is infinite its value is inf and its gradient zero, never
NaN. Gradients reach the student's entries only as far as they are positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tutelage.core.batch import log_probabilities

Divergence = Callable[[Tensor, Tensor], Tensor]


def floored(logp: Tensor) -> Tensor:
    """-inf as a finite number whose exp is zero, so that no product or difference with it is NaN."""
    return logp.clamp(min=torch.finfo(logp.dtype).min / 4)


def kl(first_logp: Tensor, second_logp: Tensor) -> Tensor:
    """KL(first || second) over the last axis."""
    first, second = floored(first_logp), floored(second_logp)
    mass = first.exp()
    infinite = ((mass > 0) & (second_logp == -torch.inf)).any(-1)
    return (mass * (first - second)).sum(-1).masked_fill(infinite, torch.inf)


def mixture(first_logp: Tensor, second_logp: Tensor, weight: float) -> Tensor:
    """log(weight * first + (1 - weight) * second), 0 < weight < 1."""
    return torch.logaddexp(floored(first_logp) + math.log(weight), floored(second_logp) + math.log1p(-weight))


def forward_kl(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """KL(q || p): covers the teacher's modes."""
    return kl(teacher_logp, student_logp)


def reverse_kl(student_logp: Tensor, teacher_logp: Tensor) -> Tensor:
    """KL(p || q): seeks one of the teacher's modes."""
    return kl(student_logp, teacher_logp)


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


DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "tvd": tvd,
    "skew_forward_kl": skew_forward_kl,
    "skew_reverse_kl": skew_reverse_kl,
}
PARAMETERS = {"jsd": "beta", "skew_forward_kl": "alpha", "skew_reverse_kl": "alpha"}


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
    if name != known:
        has = f"its parameter is {known}" if known else "it has none"
        raise ValueError(f"divergence {kind!r} has no parameter {name!r}; {has}")
    if name == "beta" and not 0 <= value <= 1:
        raise ValueError(f"beta is {value}; the teacher's weight in jsd lies between 0 and 1")
    if name == "alpha" and not 0 <= value < 1:
        raise ValueError(f"alpha is {value}; the skew lies from 0 to below 1")


def divergence(kind: str, student_logits: Tensor, teacher_logits: Tensor, **params: float) -> Tensor:
    """Nats per row [..] between two sets of full-vocabulary logits [.., V]; log-softmax in at least float32.

    Raises:
        ValueError: an unknown kind, a parameter out of range, or vocabularies that differ.
    """
    if student_logits.shape[-1] != teacher_logits.shape[-1]:
        raise ValueError(
            f"the student has {student_logits.shape[-1]} logits and the teacher {teacher_logits.shape[-1]}; "
            "cut both to the tokens that they share"
        )
    return measure(kind, **params)(log_probabilities(student_logits), log_probabilities(teacher_logits))
