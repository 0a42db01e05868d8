"""The loss: states x signals (support x target x divergence, estimator or credit) x weights, in chunks of rows.

Only the rows that are learned from ever enter the arithmetic, so nothing in any other row, NaN included, can reach the
loss or the gradient. Each chunk is recomputed in the backward pass: no [R, V] tensor of all rows is ever kept. A plain
divergence over the full vocabulary goes through `fused` instead, which computes nothing twice; `fusible` decides.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tutelage.core import diagnostics, metrics
from tutelage.core.ahead import looked_ahead, of_texts
from tutelage.core.batch import OutputHead, TokenBatch, at_tokens, check_shapes, log_probabilities
from tutelage.core.credit import whole_rollouts
from tutelage.core.fused import fused_divergence
from tutelage.core.kl import entropy
from tutelage.core.metrics import Measured, Partial
from tutelage.core.objective import Objective
from tutelage.core.outcome import surrogate
from tutelage.core.preference import whole_pairs
from tutelage.core.pulls import PULLS
from tutelage.core.signal import heard, pulled, reference_logp, token_losses
from tutelage.core.stabilizers import entropy_gate, freshness, ordinary_tokens, ratio_clip, reference_kl
from tutelage.core.support import SUPPORTS, Aligned, check_set, needed, sampled_rows, signals
from tutelage.core.workspace import Workspace


def learned_rows(batch: TokenBatch, objective: Objective) -> Tensor:
    """True for the rows that the objective can learn from [R]; their number is the loss's denominator.

    Raises:
        ValueError: a signal that the objective needs is not in the batch.
    """
    learned_R = batch.mask_R & ordinary_tokens(batch.token_ids_R, objective.special_ids)
    if objective.outcome is not None:
        learned_R = learned_R & ~needed(batch.outcome_R, "advantages of rewards").isnan()
    wanted_R = learned_R
    for term in objective.parts:
        learned_R = learned_R & term.where.usable(batch)
        if term.objective.comparison is not None:
            learned_R = learned_R & SUPPORTS[term.objective.comparison].usable(signals(batch))
    if objective.by_text:
        learned_R = learned_R & sampled_rows(signals(batch))
    if objective.entropy_asked:
        learned_R = learned_R & ~needed(signals(batch).entropy_R, "entropies").isnan()
    if objective.looks_ahead:
        rollout_R = needed(batch.rollout_R, "rollout_R")
        together_R = rollout_R // 2 if objective.in_pairs else rollout_R
        learned_R = learned_R & whole_rollouts(learned_R, wanted_R, together_R)
        if objective.in_pairs:
            learned_R = learned_R & whole_pairs(rollout_R, learned_R)
    return learned_R


def fusible(batch: TokenBatch, objective: Objective) -> bool:
    """True for a full divergence of two heads whose gradient is written out, if nothing else touches its logits."""
    altering = (objective.signal_clip, objective.ratio_clip, objective.entropy_gate, objective.reference_coef)
    altering += (objective.freshness, objective.outcome)
    full = objective.kind == "divergence" and objective.support == "full" and not objective.alpha_by_text
    written = full and objective.divergence in PULLS and objective.target.kind == "teacher"
    return written and isinstance(batch.head, OutputHead) and not any(each is not None for each in altering)


def loss(
    batch: TokenBatch, objective: Objective, *, chunk_rows: int = 1024, workspace: Workspace | None = None
) -> tuple[Tensor, dict[str, Measured]]:
    """The loss summed over the learned rows, in nats and with gradients, and the metrics of those rows.

    workspace: kept by a caller that takes one loss after another

    Divide by the number of learned rows of the whole optimiser step, not of the micro-batch. A row whose loss is
    infinite (the teacher forbids what the student may do, and no signal_clip is set) has no finite gradient: it adds
    nothing to either, stays in the denominator and is counted in `infinite_fraction`.

    Raises:
        ValueError: shapes disagree, a signal is missing, a set has no probabilities, or no vocabulary is shared.
    """
    check_shapes(batch)
    rows = batch.take(learned_rows(batch, objective).nonzero().squeeze(-1))
    for term in objective.parts:
        if term.objective.comparison is not None:
            check_set(term.objective.comparison, rows)
    rows = looked_ahead(rows, objective, chunk_rows)
    total = rows.hidden_RH[:0].sum(dtype=torch.promote_types(rows.hidden_RH.dtype, torch.float32))
    parts: list[dict[str, Partial]] = [of_texts(rows, objective)]
    fused = partial(_fused, workspace=workspace)
    compute, step = (fused, max(1, len(rows))) if fusible(rows, objective) else (_recomputed, chunk_rows)
    for start in range(0, len(rows), step):
        chunk_sum, partials = compute(rows.take(slice(start, start + step)), objective)
        total = total + chunk_sum
        parts.append(partials)
    learned = metrics.Metric(len(rows), int(batch.mask_R.sum()))
    counted = {"tokens": metrics.Metric(len(rows), 1), "learned_fraction": learned}
    return total, metrics.merge([counted, *map(metrics.to_numbers, parts)])


def _fused(rows: TokenBatch, objective: Objective, workspace: Workspace | None) -> tuple[Tensor, dict[str, Partial]]:
    """Loss and metrics of all rows, their logits in tiles."""
    teacher = signals(rows)
    total, divergence_R, observed = fused_divergence(
        objective.divergence,
        rows.hidden_RH,
        cast(OutputHead, rows.head),
        needed(teacher.hidden_RH, "hidden states"),
        needed(teacher.head, "the output head"),
        token_ids_R=rows.token_ids_R,
        vocabulary_size=rows.vocabulary_size,
        workspace=workspace,
        **cast("dict[str, Any]", objective.parameters),
    )
    partials: dict[str, Partial] = {
        "loss": (total.detach(), torch.tensor(len(rows), device=total.device)),
        "infinite_fraction": metrics.over(divergence_R.isposinf().double()),
    }
    return total, partials | diagnostics.of_whole(needed(observed, "what metrics need"), objective, rows)


def _recomputed(rows: TokenBatch, objective: Objective) -> tuple[Tensor, dict[str, Partial]]:
    outcome = checkpoint(_chunk, rows, objective, use_reentrant=False, preserve_rng_state=False)
    return cast("tuple[Tensor, dict[str, Partial]]", outcome)


def _chunk(rows: TokenBatch, objective: Objective) -> tuple[Tensor, dict[str, Partial]]:
    """Loss and metrics of a few rows, all of which are learned from."""
    student_logp_RV = log_probabilities(rows.head(rows.hidden_RH), rows.vocabulary_size)
    logp_R = at_tokens(student_logp_RV, rows.token_ids_R[:, None]).squeeze(-1)
    losses_R, infinite_R, whole = _row_losses(rows, objective, student_logp_RV, logp_R)
    loss_sum = losses_R.sum()
    told = diagnostics.of_chunk(objective, rows, student_logp_RV, logp_R, whole)  # last: the backward pass stops before
    partials: dict[str, Partial] = {
        "loss": (loss_sum.detach(), torch.tensor(len(rows), device=loss_sum.device)),
        "infinite_fraction": metrics.over(infinite_R.double()),
    }
    return loss_sum, partials | told


def _row_losses(
    rows: TokenBatch, objective: Objective, student_logp_RV: Tensor, logp_R: Tensor
) -> tuple[Tensor, Tensor, Aligned | None]:
    """What each row adds to the loss [R], which of them are infinite and add nothing, and both distributions where
    they are compared over the full vocabulary."""
    reference_logp_RV = reference_logp(objective, rows)
    signal_R, whole, aligned, aimed = torch.zeros_like(logp_R), None, None, None
    for term in objective.parts:
        aligned = heard(term.objective, student_logp_RV, rows)
        aimed = pulled(term.objective, aligned, reference_logp_RV, rows)
        own_R = token_losses(term.objective, logp_R, aimed, rows)
        own_R = torch.where(term.where.inside(rows, student_logp_RV, logp_R), own_R, 0.0)
        signal_R = signal_R + term.weight * own_R
        whole = aligned if term.objective.comparison == "full" else whole
    anchor_R = _reference_losses(objective, student_logp_RV, reference_logp_RV)
    infinite_R = signal_R.isposinf() | anchor_R.isposinf()
    losses_R = torch.where(infinite_R, 0.0, signal_R) * _weights(objective, logp_R, rows)
    losses_R = losses_R + _reward_losses(objective, logp_R, aimed, rows)
    losses_R = losses_R * _gate(objective, student_logp_RV, rows, aligned) * _freshness(objective, rows)
    return losses_R + torch.where(infinite_R, 0.0, anchor_R), infinite_R, whole


@torch.no_grad()
def contributions(batch: TokenBatch, objective: Objective, *, chunk_rows: int = 1024) -> Tensor:
    """What each row adds to the sum that `loss` returns [R], nats; NaN where it is not learned from.

    Raises:
        ValueError: as `loss`.
    """
    learned_R = learned_rows(batch, objective)
    rows = looked_ahead(batch.take(learned_R.nonzero().squeeze(-1)), objective, chunk_rows)
    parts = [rows.hidden_RH.new_zeros(0, dtype=torch.promote_types(rows.hidden_RH.dtype, torch.float32))]
    for start in range(0, len(rows), chunk_rows):
        chunk = rows.take(slice(start, start + chunk_rows))
        student_logp_RV = log_probabilities(chunk.head(chunk.hidden_RH), chunk.vocabulary_size)
        logp_R = at_tokens(student_logp_RV, chunk.token_ids_R[:, None]).squeeze(-1)
        parts.append(_row_losses(chunk, objective, student_logp_RV, logp_R)[0])
    own_R = torch.cat(parts)
    return own_R.new_full((len(batch),), torch.nan).masked_scatter(learned_R, own_R)


def _reward_losses(objective: Objective, logp_R: Tensor, aligned: Aligned | None, rows: TokenBatch) -> Tensor:
    """The term of the rewards [R]; the teacher is in its ratio only where it has a share of it."""
    if objective.outcome is None:
        return torch.zeros_like(logp_R)
    teacher_R = aligned.teacher_logp_RS.squeeze(-1) if aligned and objective.outcome.teacher_share else None
    advantage_R = needed(rows.outcome_R, "advantages of rewards").to(logp_R.dtype)
    rewarded_R = surrogate(advantage_R, logp_R, rows.behaviour_logprob_R, teacher_R, objective.outcome)
    return objective.outcome.weight * rewarded_R


def _reference_losses(objective: Objective, student_logp_RV: Tensor, reference_logp_RV: Tensor | None) -> Tensor:
    if objective.reference_coef is None:
        return student_logp_RV.new_zeros(len(student_logp_RV))
    return reference_kl(student_logp_RV, needed(reference_logp_RV, "the reference"), objective.reference_coef)


def _weights(objective: Objective, logp_R: Tensor, rows: TokenBatch) -> Tensor:
    if objective.ratio_clip is None or rows.behaviour_logprob_R is None:
        return torch.ones_like(logp_R)
    return ratio_clip(logp_R, rows.behaviour_logprob_R, *objective.ratio_clip)


def _freshness(objective: Objective, rows: TokenBatch) -> Tensor | float:
    if objective.freshness is None:
        return 1.0
    return freshness(needed(rows.lag_R, "lags"), objective.freshness).to(rows.hidden_RH.dtype)


@torch.no_grad()
def _gate(objective: Objective, student_logp_RV: Tensor, rows: TokenBatch, aligned: Aligned | None) -> Tensor | float:
    if objective.entropy_gate is None:
        return 1.0
    whose, minimum, maximum = objective.entropy_gate
    if whose == "student":
        entropy_R = entropy(student_logp_RV)
    elif objective.entropy_asked:
        entropy_R = needed(signals(rows).entropy_R, "entropies")
    else:
        entropy_R = entropy(needed(aligned, "teacher signals").teacher_logp_RS)
    return entropy_gate(entropy_R, minimum, maximum)
