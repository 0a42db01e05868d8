"""One tile of rows: logits of both sides, the divergence's values, and the gradient in place of the student's logits.

Elementwise work runs over blocks of rows that fit a processor's caches. Shapes: T rows of a tile, B of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.core.batch import OutputHead, at_tokens
from tutelage.core.diagnostics import Observed, overlap_of_all
from tutelage.core.products import logits_of
from tutelage.core.pulls import Buffers, Pair, Pull, Pulled, infinite_at, paired, through_softmax

# Elements of the student's tile by default, 105 MB in float32: more rows make products faster, fewer take less memory.
TILE = 25 << 20
# Elements of a block for each thread of a CPU: smaller ones fit its caches better, but wake threads more often.
BLOCK = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is computed; widened: whether products of fewer bits than float32's are taken in float32"""

    pull: Pull
    hidden_RH: Tensor
    head: OutputHead
    teacher_hidden_RH: Tensor
    teacher_head: OutputHead
    token_ids_R: Tensor | None
    temperature: float
    size: int
    tile_rows: int
    widened: bool

    @property
    def columns(self) -> int:
        """Values of a row: the divergence, and what is observed."""
        return 1 if self.token_ids_R is None else 1 + len(Observed._fields)


def even(rows: int, most: int) -> int:
    """The rows of a tile, at most `most`, that cut all rows into as few tiles as possible, of one size."""
    return -(-rows // -(-rows // most)) if rows else most


def slices(start: int, stop: int, step: int) -> Iterator[slice]:
    """The rows from `start` to `stop`, in pieces."""
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def accurate(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def logits_into(tile_TV: Tensor, hidden_TH: Tensor, head: OutputHead, *, widened: bool) -> None:
    """Logits of the tile's rows over its columns, before any temperature."""
    logits_of(hidden_TH, head.weight_VH[: tile_TV.shape[-1]], tile_TV, widened=widened)
    if head.bias_V is not None:
        tile_TV += head.bias_V[: tile_TV.shape[-1]]
    if head.scale != 1:
        tile_TV *= head.scale
    if head.softcap is not None:
        tile_TV.div_(head.softcap).tanh_().mul_(head.softcap)


def compare_tile(
    student_TV: Tensor,
    teacher_TV: Tensor,
    task: Task,
    rows: slice,
    columns: list[Tensor],
    buffers: Buffers,
    *,
    wants_gradient: bool,
) -> float:
    """Fill the rows' part of the columns; overwrite the student's logits by their gradient where it is wanted.

    Returns what that gradient is still to be multiplied by, the same for every tile.
    """
    step, weight, zeros = len(buffers.p), 1.0, False
    for start in range(0, len(student_TV), step):
        block = slice(start, start + step)
        own_BV, other_BV = student_TV[block], teacher_TV[block]
        into = slice(rows.start + start, rows.start + start + len(own_BV))
        token_ids_B = None if task.token_ids_R is None else task.token_ids_R[into]
        damping_BV = damping(own_BV, task.head)
        compared = compare(own_BV, other_BV, task, token_ids_B, buffers, zeros=zeros)
        if not (zeros or compared.finite()):
            zeros = True  # for the rest of the tile, too: what one row lacks most others do
            logits_again(own_BV, other_BV, task, into)
            compared = compare(own_BV, other_BV, task, token_ids_B, buffers, zeros=zeros)
        for column, values_B in zip(columns, compared.columns(), strict=True):
            column[into] = values_B
        if wants_gradient:
            through_head(compared, own_BV, damping_BV)
            weight = compared.pulled.weight
    return weight * task.head.scale / task.temperature


def logits_again(student_BV: Tensor, teacher_BV: Tensor, task: Task, rows: slice) -> None:
    """Of rows whose logits were overwritten."""
    logits_into(student_BV, task.hidden_RH[rows], task.head, widened=task.widened)
    logits_into(teacher_BV, task.teacher_hidden_RH[rows], task.teacher_head, widened=task.widened)


class Compared(NamedTuple):
    """Both sides of a block of rows, its values and pulls, and what is observed."""

    pair: Pair
    pulled: Pulled
    observed: tuple[Tensor, ...]

    def columns(self) -> tuple[Tensor, ...]:
        return self.pulled.value_B, *self.observed

    def finite(self) -> bool:
        return math.isfinite(torch.stack(self.columns()).sum().item())


def compare(
    student_BV: Tensor, teacher_BV: Tensor, task: Task, token_ids_B: Tensor | None, buffers: Buffers, *, zeros: bool
) -> Compared:
    """Overwrites the logits of both sides; the observed come first, as the pull overwrites what they are of."""
    pair = paired(student_BV, teacher_BV, task.temperature, buffers, zeros=zeros)
    observed = () if token_ids_B is None else observe(pair, token_ids_B)
    return Compared(pair, task.pull(pair), observed)


def block_rows(tile_TV: Tensor) -> int:
    """Rows of a block: on a CPU as many for each thread as `BLOCK` holds, elsewhere all."""
    rows, size = tile_TV.shape
    return min(rows, max(1, BLOCK // size) * torch.get_num_threads()) if tile_TV.device.type == "cpu" else rows


def damping(logits_BV: Tensor, head: OutputHead) -> Tensor | None:
    """What a soft-cap leaves of a gradient, from the logits behind it."""
    return None if head.softcap is None else 1 - (logits_BV / head.softcap).square_()


def through_head(compared: Compared, into_BV: Tensor, damping_BV: Tensor | None) -> None:
    """The gradient before the soft-cap, over the factor that `compare_tile` returns."""
    through_softmax(compared.pulled, compared.pair, into_BV)
    if damping_BV is not None:
        into_BV *= damping_BV


def observe(pair: Pair, token_ids_B: Tensor) -> Observed:
    logp, logq, p, q = pair.logp, pair.logq, pair.p, pair.q
    return Observed(
        _written(logp, pair.p_absent, token_ids_B),
        _written(logq, pair.q_absent, token_ids_B),
        infinite_at(torch.sub(logp, logq, out=pair.spare).mul_(p).sum(-1), p, pair.q_absent),
        infinite_at(torch.sub(logq, logp, out=pair.spare).mul_(q).sum(-1), q, pair.p_absent),
        -torch.mul(p, logp, out=pair.spare).sum(-1),
        -torch.mul(q, logq, out=pair.spare).sum(-1),
        *overlap_of_all(logp, logq),
    )


def _written(logp_BV: Tensor, absent_BV: Tensor | None, token_ids_B: Tensor) -> Tensor:
    """The written tokens' log-probabilities, -inf where they are exact zeros."""
    logp_B = at_tokens(logp_BV, token_ids_B[:, None]).squeeze(-1)
    if absent_BV is None:
        return logp_B
    return logp_B.masked_fill(absent_BV.gather(-1, token_ids_B[:, None].long()).squeeze(-1), -torch.inf)
