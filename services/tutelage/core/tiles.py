"""One tile of rows: logits of both sides, the divergence's values, and the gradient in place of the student's logits.

Elementwise work runs over blocks of rows that fit a processor's caches. Shapes: T rows of a tile, B of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.core.batch import OutputHead, at_tokens
from tutelage.core.diagnostics import Observed, overlap_of_all
from tutelage.core.products import logits_of
from tutelage.core.pulls import Pair, Pull, dot, kl, paired, through_softmax

# Elements of the student's tile by default, 105 MB in float32: more rows make products faster, fewer take less memory.
TILE = 25 << 20
# Elements of a block on a CPU.
BLOCK = 1 << 19


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is computed; of `head` only scale and soft-cap are read, since autograd must see weight and bias.

    widened: whether products of fewer bits than float32's are taken in float32
    """

    pull: Pull
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
    student_TV: Tensor, teacher_TV: Tensor, task: Task, rows: slice, columns: list[Tensor], *, wants_gradient: bool
) -> None:
    """Fill the rows' part of the columns; overwrite the student's logits by their gradient where it is wanted."""
    step = max(1, BLOCK // task.size) if student_TV.device.type == "cpu" else len(student_TV)
    for start in range(0, len(student_TV), step):
        block = slice(start, start + step)
        pair = paired(student_TV[block], teacher_TV[block], task.temperature)
        value_B, pull_BV = task.pull(pair)
        into = slice(rows.start + start, min(rows.start + start + step, rows.stop))
        columns[0][into] = value_B
        if task.token_ids_R is not None:
            for column, values_B in zip(columns[1:], observe(pair, task.token_ids_R[into]), strict=True):
                column[into] = values_B
        if wants_gradient:
            gradient_BV = through_softmax(pull_BV, value_B, pair.p)
            student_TV[block] = through_head(gradient_BV, student_TV[block], task)


def through_head(gradient_BV: Tensor, logits_BV: Tensor, task: Task) -> Tensor:
    """The gradient before temperature, soft-cap and scale, from that after them."""
    head = task.head
    if head.softcap is not None:
        gradient_BV *= 1 - (logits_BV / head.softcap).square_()
    factor = head.scale / task.temperature
    return gradient_BV if factor == 1 else gradient_BV.mul_(factor)


def observe(pair: Pair, token_ids_B: Tensor) -> Observed:
    log_ratio = pair.logp - pair.logq
    return Observed(
        _written(pair.logp, pair.p_absent, token_ids_B),
        _written(pair.logq, pair.q_absent, token_ids_B),
        kl(pair.p, log_ratio, pair.q_absent),
        kl(pair.q, -log_ratio, pair.p_absent),
        -dot(pair.p, pair.logp),
        -dot(pair.q, pair.logq),
        *overlap_of_all(pair.logp, pair.logq),
    )


def _written(logp_BV: Tensor, absent_BV: Tensor | None, token_ids_B: Tensor) -> Tensor:
    """The written tokens' log-probabilities, -inf where they are exact zeros."""
    logp_B = at_tokens(logp_BV, token_ids_B[:, None]).squeeze(-1)
    if absent_BV is None:
        return logp_B
    return logp_B.masked_fill(absent_BV.gather(-1, token_ids_B[:, None].long()).squeeze(-1), -torch.inf)
