"""Full-vocabulary divergences from hidden states, with the gradient taken in the forward pass.

Logits exist for one tile of rows at a time. The tile of the student is overwritten by the gradient of its logits, which
at once becomes the gradient of hidden states and head: nothing of size [R, V] is kept, nothing is computed twice. Three
of the four products are the student's and run faster on more rows, so the teacher has logits for half a tile at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tutelage.core.batch import OutputHead
from tutelage.core.diagnostics import Observed
from tutelage.core.divergences import measure
from tutelage.core.products import lacks_instructions, through_weight
from tutelage.core.pulls import PULLS, Buffers
from tutelage.core.tiles import TILE, Task, accurate, block_rows, compare_tile, even, logits_into, slices
from tutelage.core.workspace import Workspace


class Fused(NamedTuple):
    """total: sum over the rows of finite divergence, with gradients; divergence_R: each row's, without."""

    total: Tensor
    divergence_R: Tensor
    observed: Observed | None


def fused_divergence(
    kind: str,
    hidden_RH: Tensor,
    head: OutputHead,
    teacher_hidden_RH: Tensor,
    teacher_head: OutputHead,
    *,
    token_ids_R: Tensor | None = None,
    temperature: float = 1.0,
    vocabulary_size: int | None = None,
    tile_rows: int | None = None,
    widened: bool | None = None,
    workspace: Workspace | None = None,
    **params: float,
) -> Fused:
    """The sum of a full-vocabulary divergence over rows, in nats; `observed` where the written tokens are given.

    hidden_RH, head: the student's; its hidden states, weight and bias get gradients as far as they ask for them
    temperature: divides both sides' logits; the loss is not multiplied by its square
    vocabulary_size: the tokens that both share; the heads' entries behind them have no mass and no gradient
    tile_rows: how many rows of the student have logits at a time, of the teacher half as many; None for as many as
        `tiles.TILE` entries hold
    widened: whether bfloat16 is multiplied as float32; None for where the processor has no instructions for it
    workspace: where the tiles are; a caller that keeps one for its next pass saves a processor the fresh memory

    Products are taken in the weights' precision unless widened, everything else and the head's gradient in at least
    float32. Rows of infinite divergence add nothing.

    Raises:
        ValueError: an unknown kind or parameter, a temperature or tile that is not positive, sizes that do not fit, a
            token outside the vocabulary.
    """
    measure(kind, **params)
    if kind not in PULLS:
        raise ValueError(f"{kind} has no gradient written out; those that have are {', '.join(PULLS)}")
    if not (0 < temperature < math.inf and (tile_rows is None or tile_rows > 0)):
        raise ValueError(f"temperature is {temperature} and tile_rows {tile_rows}; both must be positive")
    if len(hidden_RH) != len(teacher_hidden_RH):
        raise ValueError(
            f"the student has {len(hidden_RH)} rows and the teacher {len(teacher_hidden_RH)}; give the same of both"
        )
    hidden_RH, head = _as_computed(hidden_RH, head)
    teacher_hidden_RH, teacher_head = _as_computed(teacher_hidden_RH, teacher_head)
    size = _shared(head, teacher_head, vocabulary_size)
    pull = partial(PULLS[kind], **params)
    if widened is None:
        widened = lacks_instructions(head.weight_VH.dtype, hidden_RH.device)
    tile_rows = tile_rows or even(len(hidden_RH), max(1, TILE // size))
    sides = hidden_RH, head, teacher_hidden_RH, teacher_head
    task = Task(pull, *sides, token_ids_R, temperature, size, tile_rows, widened)
    workspace = workspace or Workspace()
    with torch.autocast(hidden_RH.device.type, enabled=False), workspace.lock:
        total, divergence_R, *observed = _Fused.apply(hidden_RH, head.weight_VH, head.bias_V, task, workspace)
    return Fused(total, divergence_R, Observed(*observed) if observed else None)


def _as_computed(hidden_RH: Tensor, head: OutputHead) -> tuple[Tensor, OutputHead]:
    """Both in the precision of the product: the weight's, or that of autocast."""
    device = hidden_RH.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight_VH.dtype
    bias_V = None if head.bias_V is None else head.bias_V.to(dtype)
    return hidden_RH.to(dtype), replace(head, weight_VH=head.weight_VH.to(dtype), bias_V=bias_V)


def _shared(head: OutputHead, teacher_head: OutputHead, vocabulary_size: int | None) -> int:
    sizes = len(head.weight_VH), len(teacher_head.weight_VH)
    if vocabulary_size is None and sizes[0] != sizes[1]:
        raise ValueError(
            f"the student's head has {sizes[0]} entries and the teacher's {sizes[1]}; "
            "if they share a tokenizer, give vocabulary_size, the number of tokens before the padding"
        )
    size = sizes[0] if vocabulary_size is None else vocabulary_size
    if not 0 < size <= min(sizes):
        raise ValueError(
            f"the heads have {sizes[0]} and {sizes[1]} entries but vocabulary_size is {size}; "
            "give the number of tokens that student and teacher share"
        )
    return size


@dataclass(slots=True)
class Gradients:
    """What the student's tensors get; None where nobody asks. The head's is summed over tiles in at least float32."""

    hidden_RH: Tensor | None
    weight_VH: Tensor | None
    bias_V: Tensor | None

    @classmethod
    def of(cls, inputs: tuple[Tensor, Tensor, Tensor | None], wanted: tuple[bool, ...], size: int) -> Gradients:
        """Zeros, but for the part of the head that the first tile writes."""
        hidden_RH, weight_VH, bias_V = (x if want else None for x, want in zip(inputs, wanted, strict=False))
        if weight_VH is not None:
            weight_VH = torch.empty_like(weight_VH, dtype=accurate(weight_VH.dtype))
            weight_VH[size if len(inputs[0]) else 0 :] = 0
        return cls(
            None if hidden_RH is None else torch.zeros_like(hidden_RH),
            weight_VH,
            None if bias_V is None else torch.zeros_like(bias_V, dtype=accurate(bias_V.dtype)),
        )

    def any(self) -> bool:
        return not (self.hidden_RH is None and self.weight_VH is None and self.bias_V is None)

    def add(self, rows: slice, gradient_TV: Tensor, hidden_TH: Tensor, weight_VH: Tensor, *, widened: bool) -> None:
        """The tile's part, over the factor that all tiles have in common."""
        size = gradient_TV.shape[-1]
        if self.hidden_RH is not None:
            self.hidden_RH[rows] = through_weight(gradient_TV, weight_VH[:size], widened=widened)
        if self.weight_VH is not None:
            self.weight_VH[:size].addmm_(gradient_TV.T, hidden_TH.to(gradient_TV.dtype), beta=1 if rows.start else 0)
        if self.bias_V is not None:
            self.bias_V[:size] += gradient_TV.sum(0)


class _Fused(torch.autograd.Function):
    """The student's tensors are arguments beside the task, which has them too, for autograd to see."""

    @staticmethod
    def forward(
        ctx: Any, hidden_RH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, task: Task, workspace: Workspace
    ) -> tuple[Tensor, ...]:
        inputs = (hidden_RH, weight_VH, bias_V)
        gradients = Gradients.of(inputs, ctx.needs_input_grad, task.size)
        most = min(task.tile_rows, len(hidden_RH))
        room = partial(workspace.room, like=hidden_RH, dtype=accurate(weight_VH.dtype))
        student_TV = room("student", (most, task.size))
        teacher_TV = room("teacher", ((most + 1) // 2, task.size))
        block = (block_rows(teacher_TV), task.size)
        buffers = Buffers(*(room(name, block) for name in Buffers._fields))
        columns = [student_TV.new_empty(len(hidden_RH)) for _ in range(task.columns)]
        ctx.factor = 1.0
        for rows in slices(0, len(hidden_RH), task.tile_rows):
            tile_TV = student_TV[: rows.stop - rows.start]
            logits_into(tile_TV, hidden_RH[rows], task.head, widened=task.widened)
            for half in slices(rows.start, rows.stop, len(teacher_TV)):
                own_TV = tile_TV[half.start - rows.start : half.stop - rows.start]
                other_TV = teacher_TV[: len(own_TV)]
                logits_into(other_TV, task.teacher_hidden_RH[half], task.teacher_head, widened=task.widened)
                ctx.factor = compare_tile(
                    own_TV, other_TV, task, half, columns, buffers, wants_gradient=gradients.any()
                )
            if gradients.any():
                gradients.add(rows, tile_TV, hidden_RH[rows], weight_VH, widened=task.widened)
        ctx.gradients = gradients
        ctx.dtypes = [None if x is None else x.dtype for x in inputs]
        ctx.mark_non_differentiable(*columns)
        total = torch.where(columns[0].isposinf(), 0.0, columns[0]).sum()
        return total, *columns

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstreams: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.gradients is None:
            raise RuntimeError("the gradient of a fused divergence is handed out once; compute the loss again")
        gradients, ctx.gradients = ctx.gradients, None
        ordered = (gradients.hidden_RH, gradients.weight_VH, gradients.bias_V)
        upstream = upstreams[0] * ctx.factor
        scaled = [None if x is None else x.mul_(upstream).to(d) for x, d in zip(ordered, ctx.dtypes, strict=True)]
        return *scaled, None, None
