"""The rows of one micro-batch: what the student computed, what was written, and what the teacher said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

Record = TypeVar("Record", "TokenBatch", "TeacherSignals")
Head = Callable[[Tensor], Tensor]
# What a teacher says of the same entries.
TOGETHER = (
    ("topk_ids_RK", "topk_logprob_RK"),
    ("candidate_ids_RC", "candidate_logprob_RC"),
    ("candidate_logprob_RC", "candidate_valid_RC"),
)


@dataclass(frozen=True, slots=True, eq=False)
class OutputHead:
    """A model's output head: logits = softcap * tanh(scale * (hidden @ weight.T + bias) / softcap)."""

    weight_VH: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, hidden_RH: Tensor) -> Tensor:
        """Logits [R, V] of hidden states [R, H], in at least float32 after the product in the weights' precision."""
        product_RV = functional.linear(hidden_RH.to(self.weight_VH.dtype), self.weight_VH, self.bias_V)
        logits_RV = self.scale * product_RV.to(torch.promote_types(product_RV.dtype, torch.float32))
        return logits_RV if self.softcap is None else self.softcap * torch.tanh(logits_RV / self.softcap)

    def on(self, device: torch.device) -> OutputHead:
        """The same there."""
        bias_V = None if self.bias_V is None else self.bias_V.to(device)
        return replace(self, weight_VH=self.weight_VH.to(device), bias_V=bias_V)


@dataclass(frozen=True, slots=True, eq=False)
class TeacherSignals:
    """What the teacher said, row by row; a signal that was not asked is None.

    valid_R: False where the row was not scored
    topk_ids_RK, topk_logprob_RK: descending, id -1 pads; topk_rest_R: probability outside them
    candidate_*_RC: ids that the student chose, id -1 pads
    entropy_R: nats; hidden_RH and head: the full distribution
    """

    valid_R: Tensor
    sampled_logprob_R: Tensor | None = None
    topk_ids_RK: Tensor | None = None
    topk_logprob_RK: Tensor | None = None
    topk_rest_R: Tensor | None = None
    candidate_ids_RC: Tensor | None = None
    candidate_logprob_RC: Tensor | None = None
    candidate_valid_RC: Tensor | None = None
    entropy_R: Tensor | None = None
    hidden_RH: Tensor | None = None
    head: OutputHead | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TokenBatch:
    """Rows of several rollouts, flattened: one row for each completion token.

    hidden_RH, head: the student's last hidden states and what turns them into logits; both carry gradients. A full
        divergence needs no [R, V] tensor where the head is an OutputHead, see `fused`
    token_ids_R: the token that was written; mask_R: True where it may be learned from
    behaviour_logprob_R: log mu of the token under the policy that wrote it, NaN where absent
    lag_R: policy versions since that policy wrote it, 0 where no student did
    reference_hidden_RH, reference_head: the reference policy's, without gradients
    advantage_R: what `credit` or `preference` made of whole rollouts or pairs, where one looks ahead
    pair_loss_R: the loss of the row's pair, with a preference
    text_gap_R: how much more probable the teacher finds the row's text, where a skew follows that, see `skew`
    entropy_rank_R: the share of its text's rows that have more of the student's entropy, where a term asks
    outcome_R: the advantage of the rollout by its reward, NaN where it has none
    rollout_R: which rollout a row is of; rows of one stand together, in order. With a preference 2i is preferred to
        2i + 1
    position_R: the token's place in its completion, from 0
    vocabulary_size: the tokens that student and teacher share, where a head has padding entries behind them
    """

    hidden_RH: Tensor
    head: Head
    token_ids_R: Tensor
    mask_R: Tensor
    behaviour_logprob_R: Tensor | None = None
    lag_R: Tensor | None = None
    rollout_R: Tensor | None = None
    position_R: Tensor | None = None
    advantage_R: Tensor | None = None
    pair_loss_R: Tensor | None = None
    outcome_R: Tensor | None = None
    text_gap_R: Tensor | None = None
    entropy_rank_R: Tensor | None = None
    teacher: TeacherSignals | None = None
    reference_hidden_RH: Tensor | None = None
    reference_head: Head | None = None
    vocabulary_size: int | None = None

    def __len__(self) -> int:
        return len(self.token_ids_R)

    def take(self, rows: Tensor | slice) -> TokenBatch:
        """The batch of these rows alone, in order."""
        taken = _take(self, rows)
        return taken if self.teacher is None else replace(taken, teacher=_take(self.teacher, rows))


def check_shapes(batch: TokenBatch) -> None:
    """Refuse a batch whose parts do not face each other, row by row and entry by entry.

    Raises:
        ValueError: which two parts, and their sizes.
    """
    for record in (batch, batch.teacher):
        for name, value in () if record is None else _tensors(record):
            if value.ndim == 0 or len(value) != len(batch):
                found = f"{name} is {list(value.shape)} and token_ids_R {list(batch.token_ids_R.shape)}"
                raise ValueError(f"{found}; give a row for each written token")
    told = {} if batch.teacher is None else dict(_tensors(batch.teacher))
    for one, other in TOGETHER:
        if one in told and other in told and told[one].shape != told[other].shape:
            found = f"{one} is {list(told[one].shape)} and {other} {list(told[other].shape)}"
            raise ValueError(f"{found}; give an entry of one for each of the other")


def _tensors(record: TokenBatch | TeacherSignals) -> list[tuple[str, Tensor]]:
    values = ((field.name, getattr(record, field.name)) for field in fields(record))
    return [(name, value) for name, value in values if isinstance(value, Tensor)]


def _take(record: Record, rows: Tensor | slice) -> Record:
    return replace(record, **{name: value[rows] for name, value in _tensors(record)})


def log_probabilities(logits_RV: Tensor, vocabulary_size: int | None = None) -> Tensor:
    """Log-softmax in at least float32, over the first `vocabulary_size` entries (the rest is padding of the head).

    Raises:
        ValueError: the head has fewer entries than that.
    """
    if vocabulary_size is not None:
        if logits_RV.shape[-1] < vocabulary_size:
            raise ValueError(
                f"the head has {logits_RV.shape[-1]} entries but vocabulary_size is {vocabulary_size}; "
                "give the number of tokens that student and teacher share"
            )
        logits_RV = logits_RV[..., :vocabulary_size]
    return logits_RV.log_softmax(-1, dtype=torch.promote_types(logits_RV.dtype, torch.float32))


def at_tokens(logp_RV: Tensor, ids_RS: Tensor) -> Tensor:
    """Log-probabilities [R, S] of the ids [R, S]; -inf where an id is -1.

    Raises:
        ValueError: an id outside the vocabulary (checked here because a device would only assert).
    """
    if ids_RS.numel() and int(ids_RS.max()) >= logp_RV.shape[-1]:
        raise ValueError(
            f"token id {int(ids_RS.max())} lies outside the student's vocabulary of {logp_RV.shape[-1]} tokens; "
            "student and teacher must share a tokenizer"
        )
    gathered_RS = logp_RV.gather(-1, ids_RS.long().clamp(min=0))
    return gathered_RS.masked_fill(ids_RS < 0, -torch.inf)
