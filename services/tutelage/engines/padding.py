"""Rectangles of token ids for a model with a cache: prompts padded on the left, what follows on the right.

Left padding leaves no gap between a prompt and its continuation, so windowed attention counts right as well.
Shapes: R rows, T tokens of the padded width, S tokens that the cache will hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ids = Sequence[int] | NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Padded:
    """ids, mask (1 = a real token), positions: [R, T] int64; lengths [R]; `even`: nothing had to be padded."""

    ids: Tensor
    mask: Tensor
    positions: Tensor
    lengths: Tensor
    even: bool

    @property
    def attention_mask(self) -> Tensor | None:
        """What a model without a cache needs; None where nothing is padded, which takes its faster path."""
        return None if self.even else self.mask


def left_pad(rows: Sequence[Ids], pad_id: int, device: torch.device) -> Padded:
    """Rows that end in the last column."""
    return _pad(rows, pad_id, device, left=True)


def right_pad(rows: Sequence[Ids], pad_id: int, device: torch.device) -> Padded:
    """Rows that begin in the first column."""
    return _pad(rows, pad_id, device, left=False)


def _pad(rows: Sequence[Ids], pad_id: int, device: torch.device, *, left: bool) -> Padded:
    lengths = [len(row) for row in rows]
    width = max(lengths)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, width - lengths[i] if left else 0 : width if left else lengths[i]] = row
    length_R = torch.tensor(lengths)
    column_T = torch.arange(width) - (width - length_R[:, None] if left else 0)
    mask_RT = (column_T >= 0) & (column_T < length_R[:, None])
    return Padded(
        ids=torch.from_numpy(ids).to(device),
        mask=mask_RT.long().to(device),
        positions=(column_T * mask_RT).to(device),  # 0 for padding, so that none is past the model's last
        lengths=length_R.to(device),
        even=min(lengths) == width,
    )
