"""The teacher's signal of one objective: heard on its support, aimed at its target, clipped, and its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.core.batch import TokenBatch, at_tokens, log_probabilities
from tutelage.core.credit import advantage, constant_penalty, credited
from tutelage.core.divergences import measure
from tutelage.core.estimators import ESTIMATORS, reinforce
from tutelage.core.f_weights import F_WEIGHTS
from tutelage.core.kl import reverse_kl
from tutelage.core.objective import Objective
from tutelage.core.skew import skewed, skews, writers_gap
from tutelage.core.stabilizers import signal_clip
from tutelage.core.support import SUPPORTS, Aligned, needed
from tutelage.core.targets import mixture, towards


def heard(objective: Objective, student_logp_RV: Tensor, rows: TokenBatch) -> Aligned | None:
    """Student and teacher on the objective's support; None where no teacher is asked."""
    if objective.comparison is None:
        return None
    return SUPPORTS[objective.comparison].align(student_logp_RV, rows, objective.rest)


@torch.no_grad()
def reference_logp(objective: Objective, rows: TokenBatch) -> Tensor | None:
    """The reference over the vocabulary [R, V], where the objective needs it."""
    if not objective.needs_reference:
        return None
    logits_RV = needed(rows.reference_head, "the reference")(needed(rows.reference_hidden_RH, "the reference"))
    return log_probabilities(logits_RV, rows.vocabulary_size)


def pulled(
    objective: Objective, aligned: Aligned | None, reference_logp_RV: Tensor | None, rows: TokenBatch
) -> Aligned | None:
    """The same with the target in the place of the teacher, or of the student, within the clip."""
    return _clipped(objective, _aimed(objective, aligned, reference_logp_RV, rows))


def token_losses(objective: Objective, logp_R: Tensor, aligned: Aligned | None, rows: TokenBatch) -> Tensor:
    """Nats per row [R]; inf where infinite, with gradient zero."""
    if objective.kind == "reward":
        return torch.zeros_like(logp_R)
    if objective.kind == "supervised":
        return -logp_R
    if objective.kind == "constant_penalty":
        return reinforce(constant_penalty(logp_R, objective.penalty, objective.max_probability), logp_R)
    student_logp_RS, teacher_logp_RS = needed(aligned, "teacher signals")
    if objective.kind == "preference":  # the value is the pair's, the gradient the token's part of it
        pull_R = reinforce(needed(rows.advantage_R, "pairs"), logp_R - logp_R.detach())
        return needed(rows.pair_loss_R, "pairs") + pull_R
    if objective.kind == "policy_gradient":
        if objective.looks_ahead:
            return reinforce(needed(rows.advantage_R, "returns"), logp_R)
        own_R = own_advantage(objective, Aligned(student_logp_RS, teacher_logp_RS), rows.token_ids_R)
        return reinforce(credited(own_R, None, objective.credit), logp_R)
    if objective.support == "sampled":
        return ESTIMATORS[objective.divergence]((teacher_logp_RS - student_logp_RS).squeeze(-1))
    if objective.alpha_by_text and objective.first_gap is not None:
        gap_R = writers_gap(objective.divergence, needed(rows.text_gap_R, "gaps of texts"))
        alpha_R = skews(gap_R, objective.first_gap, objective.skew)
        return skewed(objective.divergence, student_logp_RS, teacher_logp_RS, alpha_R)
    return measure(objective.divergence, **objective.parameters)(student_logp_RS, teacher_logp_RS)


@torch.no_grad()
def own_advantage(objective: Objective, aligned: Aligned, token_ids_R: Tensor) -> Tensor:
    """Of the written tokens [R], each by itself."""
    if objective.credit.baseline:
        written = (at_tokens(logp_RV, token_ids_R[:, None]).squeeze(-1) for logp_RV in aligned)
        return advantage(*written) + reverse_kl(*aligned)
    return F_WEIGHTS[objective.divergence](advantage(*aligned).squeeze(-1), **objective.parameters)


def _aimed(
    objective: Objective, aligned: Aligned | None, reference_logp_RV: Tensor | None, rows: TokenBatch
) -> Aligned | None:
    if aligned is None or objective.target.kind == "teacher":
        return aligned
    if objective.target.stands_for == "student":
        return aligned._replace(student_logp_RS=mixture(objective.target, *aligned, None))
    reference_logp_RS = reference_logp_RV
    if reference_logp_RV is not None and objective.comparison == "sampled":
        reference_logp_RS = at_tokens(reference_logp_RV, rows.token_ids_R[:, None])
    return aligned._replace(teacher_logp_RS=towards(objective.target, *aligned, reference_logp_RS))


def _clipped(objective: Objective, aligned: Aligned | None) -> Aligned | None:
    if aligned is None or objective.signal_clip is None:
        return aligned
    return aligned._replace(
        teacher_logp_RS=signal_clip(aligned.teacher_logp_RS, aligned.student_logp_RS, objective.signal_clip)
    )
