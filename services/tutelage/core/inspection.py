"""What student and teacher held of each row of a batch, for a person to look at: without gradients, in chunks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.core.batch import TeacherSignals, TokenBatch, at_tokens, log_probabilities
from tutelage.core.kl import entropy
from tutelage.core.loss import contributions
from tutelage.core.objective import Objective


class Held(NamedTuple):
    """Of one model [R]; None where it did not say so, NaN in rows of which it said nothing.

    top_ids_RK, top_logprob_RK: its most probable tokens, descending; -1 pads
    """

    logprob_R: Tensor | None
    entropy_R: Tensor | None
    top_ids_RK: Tensor | None
    top_logprob_RK: Tensor | None


class Inspected(NamedTuple):
    """contribution_R: to the sum that is minimised, NaN where a row is not learned from."""

    student: Held
    teacher: Held
    contribution_R: Tensor


@torch.no_grad()
def inspected(batch: TokenBatch, objective: Objective, k: int, *, chunk_rows: int = 256) -> Inspected:
    """Of every row, learned from or not; k: how many of the most probable tokens of each.

    Raises:
        ValueError: as `loss`.
    """
    student, teacher = [], []
    for start in range(0, len(batch), chunk_rows):
        rows = batch.take(slice(start, start + chunk_rows))
        student.append(_of_whole(log_probabilities(rows.head(rows.hidden_RH), rows.vocabulary_size), rows, k))
        teacher.append(NOTHING if rows.teacher is None else _of_teacher(rows.teacher, rows, k))
    return Inspected(_joined(student), _joined(teacher), contributions(batch, objective, chunk_rows=chunk_rows))


NOTHING = Held(None, None, None, None)


def _of_whole(logp_RV: Tensor, rows: TokenBatch, k: int) -> Held:
    top = logp_RV.topk(min(k, logp_RV.shape[-1]))
    written_R = at_tokens(logp_RV, rows.token_ids_R[:, None]).squeeze(-1)
    return Held(written_R, entropy(logp_RV), top.indices, top.values)


def _of_teacher(teacher: TeacherSignals, rows: TokenBatch, k: int) -> Held:
    """Exact from hidden states, else as far as the signals go."""
    if teacher.hidden_RH is not None and teacher.head is not None:
        found = _of_whole(log_probabilities(teacher.head(teacher.hidden_RH), rows.vocabulary_size), rows, k)
    else:
        ids_RK, logp_RK = teacher.topk_ids_RK, teacher.topk_logprob_RK
        top = (None, None) if ids_RK is None or logp_RK is None else (ids_RK[:, :k], logp_RK[:, :k])
        found = Held(teacher.sampled_logprob_R, teacher.entropy_R, *top)
    return Held(*(_only_where(teacher.valid_R, value) for value in found))


def _only_where(valid_R: Tensor, value: Tensor | None) -> Tensor | None:
    if value is None:
        return None
    wide_R = valid_R if value.ndim == 1 else valid_R[:, None]
    return value.masked_fill(~wide_R, torch.nan if value.is_floating_point() else -1)


def _joined(parts: list[Held]) -> Held:
    """One below another; all have the same columns."""
    columns = zip(*parts, strict=True)
    return Held(*(None if column[0] is None else torch.cat(column) for column in columns))  # pyright: ignore[reportArgumentType, reportCallIssue]
