"""Values of a step, kept one by one: no sum and no mean can tell a quantile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor

QUANTILES = (10, 50, 90)
OUTER = (10, 90)
# Tokens from the start of a completion, the last included: the same places in every run, however long its text.
BINS = {"0-15": (0, 15), "16-63": (16, 63), "64-255": (64, 255), "256-1023": (256, 1023), "1024+": (1024, 1 << 62)}


class ByPosition(NamedTuple):
    """Finite values [N] and where in its completion each of them stands [N], both on the CPU."""

    values_N: Tensor
    positions_N: Tensor

    @classmethod
    def of(cls, values_R: Tensor, positions_R: Tensor) -> Self:
        finite_R = values_R.isfinite()
        return cls(values_R[finite_R].detach().float().cpu(), positions_R[finite_R].cpu())

    def joined(self, other: ByPosition) -> ByPosition:
        return ByPosition(*(torch.cat(pair) for pair in zip(self, other, strict=True)))

    def read(self, name: str) -> Iterator[tuple[str, float]]:
        """`name`Q/BIN and its value, for the bins that hold any: one of the values, never an interpolation."""
        for place, (first, last) in BINS.items():
            inside_N = (self.positions_N >= first) & (self.positions_N <= last)
            ordered = self.values_N[inside_N].sort().values
            for percent in QUANTILES if len(ordered) else ():
                yield f"{name}{percent}/{place}", _quantile(ordered, percent)


class Overall(NamedTuple):
    """Finite values [N] of all tokens, wherever they stand, on the CPU."""

    values_N: Tensor

    @classmethod
    def of(cls, values_R: Tensor) -> Self:
        return cls(values_R[values_R.isfinite()].detach().float().cpu())

    def joined(self, other: Overall) -> Overall:
        return Overall(torch.cat([self.values_N, other.values_N]))

    def read(self, name: str) -> Iterator[tuple[str, float]]:
        """`name`p10, `name`p90 and `name`max, where there is any value: each is one of the values."""
        ordered = self.values_N.sort().values
        if len(ordered):
            yield from ((f"{name}p{percent}", _quantile(ordered, percent)) for percent in OUTER)
            yield f"{name}max", ordered[-1].item()


Kept = ByPosition | Overall


def _quantile(ordered_N: Tensor, percent: int) -> float:
    at_most = -(-percent * len(ordered_N) // 100)  # so many values are at or below it
    return ordered_N[at_most - 1].item()
