"""Targets: the distribution that the student is pulled to, made of teacher, student and reference.

Every target that stands for the teacher is detached, and all are over the entries of a support. A `mixture` lies
between student and teacher, an `extrapolation` on the line through reference and teacher, beyond the teacher where its
scale is above 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from tutelage.core.kl import floored


@dataclass(frozen=True, slots=True)
class Target:
    """What stands in the teacher's place.

    weight, alpha: of a mixture, the teacher's share and the family (-1 arithmetic, 1 geometric)
    final_weight, over_steps: the share rises or falls linearly from `weight` to this, and stays
    adaptive: it rises faster while the loss falls, see `clock`
    stands_for: of a mixture, in whose place it is compared; in the student's it carries the gradient, as in AMiD
    scale: of an extrapolation, G-OPD's lambda; 1 is the teacher, whatever the reference

    Raises:
        ValueError: an unknown kind or a number out of range.
    """

    kind: Literal["teacher", "mixture", "extrapolation"] = "teacher"
    weight: float = 0.5
    alpha: float = 1.0
    final_weight: float | None = None
    over_steps: int = 1
    adaptive: bool = False
    stands_for: Literal["teacher", "student"] = "teacher"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in TARGETS:
            raise ValueError(f"unknown target {self.kind!r}; known are {', '.join(TARGETS)}")
        for weight in (self.weight, self.weight if self.final_weight is None else self.final_weight):
            if not 0 <= weight <= 1:
                raise ValueError(f"the weight is {weight}; the teacher's share in a mixture lies between 0 and 1")
            if self.stands_for == "student" and weight == 1:
                raise ValueError("a mixture of weight 1 in the student's place holds nothing of it; give less than 1")
        if not (self.alpha == 1 or -5 <= self.alpha <= 0.99):
            raise ValueError(f"alpha is {self.alpha}; the family of a mixture is 1, or lies between -5 and 0.99")
        if not 0 <= self.scale <= 10:
            raise ValueError(f"scale is {self.scale}; that of an extrapolation lies between 0 and 10")
        if self.over_steps < 1:
            raise ValueError(f"over_steps is {self.over_steps}; give at least 1")

        if self.adaptive and (self.final_weight is None or self.final_weight <= self.weight):
            raise ValueError("a share that follows the loss rises; give a final_weight above weight, or adaptive False")

    def at(self, step: int, share: float | None = None) -> Target:
        """The target of this optimiser step, counted from 0; share: the teacher's, where a clock has set it."""
        if self.final_weight is None:
            return self
        if share is not None:
            return replace(self, weight=share, final_weight=None, adaptive=False)
        way = min(1.0, step / self.over_steps)
        return replace(
            self, weight=(1 - way) * self.weight + way * self.final_weight, final_weight=None, adaptive=False
        )


def teacher(_target: Target, _student_logp: Tensor, teacher_logp: Tensor, _reference_logp: Tensor | None) -> Tensor:
    """The teacher itself."""
    return teacher_logp


def mixture(target: Target, student_logp: Tensor, teacher_logp: Tensor, _reference_logp: Tensor | None) -> Tensor:
    """The alpha-mixture of teacher and student, renormalised (AMiD, arXiv:2510.15982).

    log r = 2 / (1 - alpha) log(w q^((1 - alpha) / 2) + (1 - w) p^((1 - alpha) / 2)) + const. alpha = -1 is the plain
    mixture w q + (1 - w) p; alpha = 1 the geometric bridge w log q + (1 - w) log p, which interpolates logits as TAID
    (arXiv:2501.16937) does.
    """
    if target.weight in (0, 1):
        return teacher_logp if target.weight else student_logp
    student, teacher = floored(student_logp), floored(teacher_logp)
    weight = teacher.new_tensor(target.weight)
    if target.alpha == 1:
        mixed = weight * teacher + (1 - weight) * student
        zero = student_logp.isneginf() | teacher_logp.isneginf()
    else:
        power = (1 - target.alpha) / 2
        mixed = torch.logaddexp(weight.log() + power * teacher, (1 - weight).log() + power * student) / power
        zero = student_logp.isneginf() & teacher_logp.isneginf()
    return mixed.masked_fill(zero, -torch.inf).log_softmax(-1)


def extrapolation(target: Target, _student_logp: Tensor, teacher_logp: Tensor, reference_logp: Tensor | None) -> Tensor:
    """log q + (scale - 1)(log q - log ref) (G-OPD, arXiv:2602.12125), renormalised over more than one entry.

    The written token alone keeps the bare sum: a constant of its state that changes no gradient in expectation.
    """
    if target.scale == 1:
        return teacher_logp
    if reference_logp is None:
        raise ValueError("an extrapolation needs the reference's log-probabilities; give reference_hidden_RH and head")
    beyond = teacher_logp + (target.scale - 1) * (floored(teacher_logp) - floored(reference_logp))
    beyond = beyond.masked_fill(teacher_logp.isneginf(), -torch.inf)
    return beyond if beyond.shape[-1] == 1 else beyond.log_softmax(-1)


TARGETS: dict[str, Callable[[Target, Tensor, Tensor, Tensor | None], Tensor]] = {
    "teacher": teacher,
    "mixture": mixture,
    "extrapolation": extrapolation,
}


@torch.no_grad()
def towards(target: Target, student_logp: Tensor, teacher_logp: Tensor, reference_logp: Tensor | None) -> Tensor:
    """Log-probabilities of the target [.., S], detached.

    Raises:
        ValueError: an extrapolation without a reference.
    """
    return TARGETS[target.kind](target, student_logp, teacher_logp, reference_logp)
