"""What a row needs of other rows, taken over whole texts before the loss comes in chunks. All without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from tutelage.core import metrics
from tutelage.core.batch import TokenBatch, at_tokens, log_probabilities
from tutelage.core.credit import credited
from tutelage.core.kl import entropy
from tutelage.core.metrics import Partial
from tutelage.core.objective import Objective
from tutelage.core.preference import preferred
from tutelage.core.signal import heard, own_advantage, pulled, reference_logp
from tutelage.core.skew import GAPS, text_gaps, writers_gap
from tutelage.core.support import needed, signals


@torch.no_grad()
def looked_ahead(rows: TokenBatch, objective: Objective, chunk_rows: int) -> TokenBatch:
    """The rows with what each answers for over its rollout or pair, and how it stands among those of its text."""
    if objective.by_text:
        student_logp_R = _over_chunks(rows, chunk_rows, _written)
        teacher_logp_R = needed(signals(rows).sampled_logprob_R, "sampled log-probabilities").to(student_logp_R.dtype)
        gap_R = text_gaps(teacher_logp_R, student_logp_R, needed(rows.rollout_R, "rollout_R"))
        rows = replace(rows, text_gap_R=gap_R)
    if objective.ranks_entropy:
        entropy_R = _over_chunks(rows, chunk_rows, lambda _, student_logp_RV: entropy(student_logp_RV))
        rows = replace(rows, entropy_rank_R=ranks(entropy_R, needed(rows.rollout_R, "rollout_R")))
    if not objective.looks_ahead:
        return rows
    [ahead] = [term.objective for term in objective.parts if term.objective.looks_ahead]
    own_R = _over_chunks(rows, chunk_rows, lambda chunk, student_logp_RV: _advantage(ahead, chunk, student_logp_RV))
    if ahead.kind == "preference":
        pairs = preferred(-own_R, needed(rows.rollout_R, "rollout_R"), ahead.preference_beta)
        return replace(rows, advantage_R=pairs.advantage_R, pair_loss_R=pairs.loss_R)
    return replace(rows, advantage_R=credited(own_R, rows.rollout_R, ahead.credit))


def ranks(value_R: Tensor, rollout_R: Tensor) -> Tensor:
    """The share of the rows of the same rollout that have a larger value [R]; of equal ones the first is before."""
    order_R = value_R.argsort(descending=True, stable=True)
    order_R = order_R[rollout_R[order_R].argsort(stable=True)]
    _, index_R, count_B = rollout_R[order_R].unique_consecutive(return_inverse=True, return_counts=True)
    first_B = count_B.cumsum(0) - count_B
    place_R = torch.arange(len(value_R), device=value_R.device) - first_B[index_R]
    return torch.empty_like(value_R).scatter_(0, order_R, (place_R / count_B[index_R]).to(value_R.dtype))


def of_texts(rows: TokenBatch, objective: Objective) -> dict[str, Partial]:
    """The mean gap over the texts of each term whose skew follows it."""
    told: dict[str, Partial] = {}
    for term in objective.parts:
        if term.objective.alpha_by_text:
            inside_R = term.where.of_text(rows)
            rollout_R = needed(rows.rollout_R, "rollout_R")[inside_R]
            gap_R = writers_gap(term.objective.divergence, needed(rows.text_gap_R, "gaps of texts")[inside_R])
            first_R = torch.ones_like(rollout_R, dtype=torch.bool)
            first_R[1:] = rollout_R[1:] != rollout_R[:-1]
            told[GAPS[term.objective.divergence]] = metrics.over(gap_R[first_R])
    return told


def _over_chunks(rows: TokenBatch, chunk_rows: int, value: Callable[[TokenBatch, Tensor], Tensor]) -> Tensor:
    """`value` of each chunk and the student's log-probabilities there, of all rows [R]."""
    parts = [value(chunk, student_logp_RV) for chunk, student_logp_RV in _chunks(rows, chunk_rows)]
    return torch.cat(parts) if parts else rows.hidden_RH.new_zeros(0)


def _chunks(rows: TokenBatch, chunk_rows: int) -> Iterator[tuple[TokenBatch, Tensor]]:
    for start in range(0, len(rows), chunk_rows):
        chunk = rows.take(slice(start, start + chunk_rows))
        yield chunk, log_probabilities(chunk.head(chunk.hidden_RH), chunk.vocabulary_size)


def _written(chunk: TokenBatch, student_logp_RV: Tensor) -> Tensor:
    return at_tokens(student_logp_RV, chunk.token_ids_R[:, None]).squeeze(-1)


def _advantage(ahead: Objective, chunk: TokenBatch, student_logp_RV: Tensor) -> Tensor:
    aligned = pulled(ahead, heard(ahead, student_logp_RV, chunk), reference_logp(ahead, chunk), chunk)
    return own_advantage(ahead, needed(aligned, "teacher signals"), chunk.token_ids_R)
