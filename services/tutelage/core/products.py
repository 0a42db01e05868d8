"""Products with a head's weights, in their own precision or, where the processor lacks that, widened to float32.

A CPU without instructions for bfloat16 multiplies it some fifty times slower than float32. There both factors are cast,
the weights a block at a time, so that no second head is held. Shapes: T rows of a tile, V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Entries of the weights that are cast at a time: 16 MB in float32.
CAST = 1 << 22


def lacks_instructions(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products of this dtype are emulated there."""
    return (dtype, device.type) == (torch.bfloat16, "cpu") and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def logits_of(hidden_TH: Tensor, weight_VH: Tensor, into_TV: Tensor, *, widened: bool) -> None:
    """hidden @ weight.T, written to `into_TV` of at least float32."""
    if into_TV.dtype == weight_VH.dtype:
        torch.mm(hidden_TH, weight_VH.T, out=into_TV)
    elif widened:
        wide_TH = hidden_TH.to(into_TV.dtype)
        for columns in blocks(weight_VH):
            into_TV[:, columns] = wide_TH @ weight_VH[columns].to(into_TV.dtype).T
    else:
        into_TV.copy_(hidden_TH @ weight_VH.T)


def through_weight(gradient_TV: Tensor, weight_VH: Tensor, *, widened: bool) -> Tensor:
    """gradient @ weight [T, H], in the precision of the product."""
    if not widened or gradient_TV.dtype == weight_VH.dtype:
        return gradient_TV.to(weight_VH.dtype) @ weight_VH
    total_TH = gradient_TV.new_zeros(len(gradient_TV), weight_VH.shape[-1])
    for columns in blocks(weight_VH):
        total_TH.addmm_(gradient_TV[:, columns], weight_VH[columns].to(gradient_TV.dtype))
    return total_TH


def blocks(weight_VH: Tensor) -> Iterator[slice]:
    """The rows of the weights, so many at a time as `CAST` entries hold."""
    size, width = weight_VH.shape
    step = max(1, CAST // width)
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))
