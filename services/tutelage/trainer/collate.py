"""Scored rollouts to tensors: the only place where lists become a padded batch.

A completion token at position t of its sequence is predicted by the hidden state at t - 1; that is the one place where
this shift stands. Where the objective asks a teacher, a rollout without scores is left out whole; a row that a teacher
did not score stays, with `valid` False and NaN, and the core takes nothing from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core.batch import OutputHead, TeacherSignals
from tutelage.trainer.marking import Scored
from tutelage_client.wire import Rollout


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """B sequences, right-padded to T, and the R rows that are completion tokens, flattened in order.

    predictor_R: index into [B * T] of the hidden state that predicts the row's token
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    predictor_R: Tensor
    token_ids_R: Tensor
    mask_R: Tensor
    behaviour_logprob_R: Tensor
    teacher: TeacherSignals | None


def micro_batches(
    scored: Sequence[Scored],
    max_tokens: int,
    pad_id: int,
    device: torch.device,
    head: OutputHead | None,
    *,
    asks_teacher: bool,
) -> Iterator[MicroBatch]:
    """Rollouts sorted by length, in batches of at most `max_tokens` padded tokens (a longer rollout goes alone)."""
    usable = [s for s in scored if s.scores is not None or not asks_teacher]
    ordered = sorted(usable, key=lambda s: (_length(s.rollout), s.rollout.id))
    batch: list[Scored] = []
    for item in ordered:
        if batch and (len(batch) + 1) * _length(item.rollout) > max_tokens:
            yield collate(batch, pad_id, device, head, asks_teacher=asks_teacher)
            batch = []
        batch.append(item)
    if batch:
        yield collate(batch, pad_id, device, head, asks_teacher=asks_teacher)


def collate(
    scored: Sequence[Scored], pad_id: int, device: torch.device, head: OutputHead | None, *, asks_teacher: bool
) -> MicroBatch:
    """One micro-batch of these rollouts on `device`."""
    rollouts = [s.rollout for s in scored]
    width = max(_length(r) for r in rollouts)
    ids = np.full((len(rollouts), width), pad_id, dtype=np.int64)
    attention = np.zeros((len(rollouts), width), dtype=np.int64)
    predictors = []
    for row, rollout in enumerate(rollouts):
        start, end = len(rollout.prompt_ids), _length(rollout)
        ids[row, :start] = rollout.prompt_ids
        ids[row, start:end] = rollout.completion_ids
        attention[row, :end] = 1
        predictors.append(row * width + np.arange(start - 1, end - 1))
    return MicroBatch(
        input_ids_BT=torch.from_numpy(ids).to(device),
        attention_mask_BT=torch.from_numpy(attention).to(device),
        predictor_R=_joined(predictors, device),
        token_ids_R=_joined([r.completion_ids.astype(np.int64) for r in rollouts], device),
        mask_R=_joined([r.mask for r in rollouts], device),
        behaviour_logprob_R=_joined([_behaviour(r) for r in rollouts], device),
        teacher=signals(scored, device, head) if asks_teacher else None,
    )


def signals(scored: Sequence[Scored], device: torch.device, head: OutputHead | None) -> TeacherSignals:
    """The teacher's arrays of all rows; every rollout has scores."""
    blocks = [s.scores for s in scored if s.scores is not None]
    arrays = {name: _joined([block.arrays()[name] for block in blocks], device) for name in blocks[0].arrays()}
    ids = [s.candidate_ids for s in scored if s.candidate_ids is not None]
    return TeacherSignals(
        valid_R=arrays["valid"],
        sampled_logprob_R=arrays.get("sampled_logprob"),
        topk_ids_RK=arrays.get("topk_ids"),
        topk_logprob_RK=arrays.get("topk_logprob"),
        topk_rest_R=arrays.get("topk_rest_mass"),
        candidate_ids_RC=_joined(ids, device) if ids else None,
        candidate_logprob_RC=arrays.get("candidate_logprob"),
        candidate_valid_RC=arrays.get("candidate_valid"),
        entropy_R=arrays.get("entropy"),
        hidden_RH=arrays.get("hidden"),
        head=head,
    )


def _joined(parts: Sequence[NDArray[Any]], device: torch.device) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)).to(device)


def _behaviour(rollout: Rollout) -> NDArray[np.float32]:
    if rollout.behaviour_logprob is None:
        return np.full(len(rollout.completion_ids), np.nan, dtype=np.float32)
    return rollout.behaviour_logprob


def _length(rollout: Rollout) -> int:
    return len(rollout.prompt_ids) + len(rollout.completion_ids)
