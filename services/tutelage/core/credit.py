"""Advantages of written tokens, and for what each token answers. All without gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Credit:
    """For what a token answers: itself (steps = 1), the next steps - 1 as well, or all that follow (steps None).

    discount: what the next token counts, in (0, 1]; length_normalised: the mean of the terms, not their sum
    own: False for what follows alone, where another term has the token's own part exactly (MiniLLM's split)
    baseline: add KL(p || q) of the state, the mean of -A there, which takes variance and no gradient (vOPD,
        arXiv:2605.07865); it needs the whole distribution
    floor: nats below which no token's own advantage counts

    Raises:
        ValueError: out of range.
    """

    steps: int | None = 1
    discount: float = 1.0
    length_normalised: bool = False
    floor: float | None = None
    own: bool = True
    baseline: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}; a token answers for at least 1, itself")
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount is {self.discount}; it lies above 0, up to 1; with steps 1 nothing follows")
        if self.floor is not None and not self.floor < 0:
            raise ValueError(f"floor is {self.floor}; give nats below 0, where the teacher finds the token worse")
        if not (self.own or self.looks_ahead):
            raise ValueError(
                "a token that answers neither for itself nor for what follows learns nothing; use steps None"
            )
        if self.baseline and self.looks_ahead:
            raise ValueError("a baseline at each token takes from a return what follows; use steps 1, or no baseline")

    @property
    def looks_ahead(self) -> bool:
        return self.steps != 1


def advantage(student_logp_R: Tensor, teacher_logp_R: Tensor) -> Tensor:
    """log q(y) - log p(y): each token answers for itself (gamma = 0), not for what follows it."""
    return (teacher_logp_R - student_logp_R).detach()


def credited(advantage_R: Tensor, rollout_R: Tensor | None, credit: Credit) -> Tensor:
    """The advantages as the credit has them. Rows of one rollout stand together, in order of their tokens.

    Raises:
        ValueError: the credit looks ahead and no rollouts are given.
    """
    if credit.floor is not None:
        advantage_R = advantage_R.clamp(min=credit.floor)
    if not credit.looks_ahead:
        return advantage_R
    if rollout_R is None:
        raise ValueError("a return needs to know which rows are one rollout; give the batch its rollout_R")
    return returns(advantage_R, rollout_R, credit)


def returns(advantage_R: Tensor, rollout_R: Tensor, credit: Credit) -> Tensor:
    """sum over k < steps of discount^k A_(t + k) inside the rollout: all of it, as in MiniLLM
    (arXiv:2306.08543), or some steps, less variance for more bias (as KETCHUP, arXiv:2504.19024, shortens it)."""
    last_R = torch.ones_like(rollout_R, dtype=torch.bool)
    last_R[:-1] = rollout_R[1:] != rollout_R[:-1]
    longest = int(rollout_R.unique_consecutive(return_counts=True)[1].max()) if len(rollout_R) else 1
    total_R, terms_R = advantage_R, torch.ones_like(advantage_R)
    for _ in range(
        min(credit.steps or longest, longest) - (1 if credit.own else 2)
    ):  # adding anew, for a difference of sums may be inf - inf
        total_R = advantage_R + credit.discount * total_R.roll(-1).masked_fill(last_R, 0.0)
        terms_R = 1 + terms_R.roll(-1).masked_fill(last_R, 0.0)
    if not credit.own:
        total_R = credit.discount * total_R.roll(-1).masked_fill(last_R, 0.0)
        terms_R = terms_R.roll(-1).masked_fill(last_R, 1.0)
    return total_R / terms_R if credit.length_normalised else total_R


def whole_rollouts(usable_R: Tensor, wanted_R: Tensor, rollout_R: Tensor) -> Tensor:
    """True for the rows of rollouts whose every wanted row is usable: a return over a gap would be another number."""
    return ~torch.isin(rollout_R, rollout_R[wanted_R & ~usable_R])


def constant_penalty(student_logp_R: Tensor, penalty: float, max_probability: float) -> Tensor:
    """The teacher-free control: -penalty where p(y) <= max_probability, else 0."""
    return -penalty * (student_logp_R.detach().exp() <= max_probability).to(student_logp_R.dtype)
