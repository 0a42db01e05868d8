"""The terms of a sum: objectives with a weight each, on the rows and at the steps that each is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from tutelage.core.batch import TokenBatch
from tutelage.core.kl import entropy
from tutelage.core.support import needed, sampled_rows, signals

if TYPE_CHECKING:
    from tutelage.core.objective import Objective


@dataclass(frozen=True, slots=True)
class Where:
    """The rows of a term: those that meet every condition that is set.

    text: written by a student, so that it has a behaviour policy, or by another
    log_ratio_above, log_ratio_up_to: bounds of log q - log p of the written token, nats; the first excluded
    teacher_entropy_above, student_entropy_above: nats, excluded
    student_entropy_top: share of each text's rows, those before which the student's entropy is highest

    Raises:
        ValueError: a share out of range.
    """

    text: Literal["student", "other"] | None = None
    log_ratio_above: float | None = None
    log_ratio_up_to: float | None = None
    teacher_entropy_above: float | None = None
    student_entropy_above: float | None = None
    student_entropy_top: float | None = None

    def __post_init__(self) -> None:
        if self.student_entropy_top is not None and not 0 < self.student_entropy_top < 1:
            raise ValueError(f"student_entropy_top is {self.student_entropy_top}; a share lies above 0 and below 1")

    @property
    def needs_log_ratio(self) -> bool:
        return self.log_ratio_above is not None or self.log_ratio_up_to is not None

    def usable(self, batch: TokenBatch) -> Tensor:
        """True for the rows of which one can tell whether they are the term's [R].

        Raises:
            ValueError: a signal that a condition needs is not in the batch.
        """
        usable_R = torch.ones_like(batch.mask_R)
        if self.needs_log_ratio:
            usable_R = usable_R & sampled_rows(signals(batch))
        if self.teacher_entropy_above is not None:
            usable_R = usable_R & ~needed(signals(batch).entropy_R, "entropies").isnan()
        return usable_R

    def of_text(self, rows: TokenBatch) -> Tensor:
        """True for the rows whose text is the term's [R]."""
        if self.text is None:
            return torch.ones_like(rows.mask_R)
        return _by_student(rows) == (self.text == "student")

    @torch.no_grad()
    def inside(self, rows: TokenBatch, student_logp_RV: Tensor, logp_R: Tensor) -> Tensor:
        """True for the rows of the term [R], all of which are usable."""
        inside_R = self.of_text(rows)
        if self.needs_log_ratio:
            log_ratio_R = needed(signals(rows).sampled_logprob_R, "sampled log-probabilities") - logp_R
            above = -torch.inf if self.log_ratio_above is None else self.log_ratio_above
            up_to = torch.inf if self.log_ratio_up_to is None else self.log_ratio_up_to
            inside_R = inside_R & ((log_ratio_R > above) | (above == -torch.inf)) & (log_ratio_R <= up_to)
        if self.teacher_entropy_above is not None:
            inside_R = inside_R & (needed(signals(rows).entropy_R, "entropies") > self.teacher_entropy_above)
        if self.student_entropy_above is not None:
            inside_R = inside_R & (entropy(student_logp_RV) > self.student_entropy_above)
        if self.student_entropy_top is not None:
            inside_R = inside_R & (needed(rows.entropy_rank_R, "ranks of entropy") < self.student_entropy_top)
        return inside_R


def _by_student(rows: TokenBatch) -> Tensor:
    behaviour_R = rows.behaviour_logprob_R
    return torch.zeros_like(rows.mask_R) if behaviour_R is None else ~behaviour_R.isnan()


@dataclass(frozen=True, slots=True)
class Term:
    """weight x objective on the rows of `where`, at the optimiser steps from_step <= step < until_step.

    final_weight, over_steps: the weight moves linearly from step 0 on, and stays

    Raises:
        ValueError: out of range.
    """

    objective: Objective
    weight: float = 1.0
    where: Where = Where()
    from_step: int = 0
    until_step: int | None = None
    final_weight: float | None = None
    over_steps: int | None = None

    def __post_init__(self) -> None:
        if not self.weight > 0 or (self.final_weight is not None and not self.final_weight > 0):
            raise ValueError(f"weight is {self.weight}, at last {self.final_weight or self.weight}; give one above 0")
        endless = self.over_steps is not None and self.over_steps < 1
        if endless or (self.final_weight is None) != (self.over_steps is None):
            raise ValueError("final_weight and over_steps, of at least 1, go together")
        if self.until_step is not None and self.until_step <= self.from_step:
            raise ValueError(f"until_step is {self.until_step}, which is not above from_step, {self.from_step}")

    def acts(self, step: int) -> bool:
        return self.from_step <= step and (self.until_step is None or step < self.until_step)

    def at(self, step: int, first_gaps: Mapping[str, float]) -> Term:
        """The term of this optimiser step, as `Objective.at`."""
        objective = self.objective.at(step, first_gaps=first_gaps)
        if self.final_weight is None or self.over_steps is None:
            return replace(self, objective=objective)
        way = min(1.0, step / self.over_steps)
        weight = (1 - way) * self.weight + way * self.final_weight
        return replace(self, objective=objective, weight=weight, final_weight=None, over_steps=None)
