"""Metrics as sums and counts per token, added over chunks, micro-batches and processes, and divided once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.core.quantiles import ByPosition, Kept, Overall

# How two partial values become one, and what is shown: a mean unless named here.
TOTALS = frozenset({"tokens"})
MAXIMA = frozenset({"ratio_max"})
# A sum of squares, shown as (sum w)^2 / (n sum w^2) of the metric that is named.
SAMPLE_SIZES = {"ratio_ess": "ratio"}


class Metric(NamedTuple):
    """A sum over tokens and how many they were; of a maximum the sum is the largest value."""

    sum: float
    tokens: float


Measured = Metric | Kept
Partial = tuple[Tensor, Tensor] | Kept


def merge(parts: Iterable[Mapping[str, Measured]]) -> dict[str, Measured]:
    """One set of metrics for several micro-batches or processes."""
    merged: dict[str, Measured] = {}
    for part in parts:
        for name, metric in part.items():
            merged[name] = _join(name, merged[name], metric) if name in merged else metric
    return merged


def _join(name: str, one: Measured, other: Measured) -> Measured:
    match one, other:
        case ByPosition(), ByPosition():
            return one.joined(other)
        case Overall(), Overall():
            return one.joined(other)
        case _:
            assert isinstance(one, Metric) and isinstance(other, Metric)
    total = max(one.sum, other.sum) if name in MAXIMA else one.sum + other.sum
    return Metric(total, one.tokens + other.tokens)


def values(metrics: Mapping[str, Measured]) -> dict[str, float]:
    """What people read: means, totals, maxima, sample sizes, quantiles; what counted nothing is left out."""
    shown: dict[str, float] = {}
    for name, metric in metrics.items():
        if isinstance(metric, Kept):
            shown |= dict(metric.read(name))
        elif metric.tokens:
            shown[name] = _value(name, metric, metrics)
    return shown


def _value(name: str, metric: Metric, metrics: Mapping[str, Measured]) -> float:
    if name in SAMPLE_SIZES:
        weights = metrics[SAMPLE_SIZES[name]]
        assert isinstance(weights, Metric)
        return weights.sum**2 / (metric.tokens * metric.sum) if metric.sum else 0.0
    return metric.sum if name in TOTALS | MAXIMA else metric.sum / metric.tokens


def over(values_R: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and count of the finite values."""
    finite_R = values_R.isfinite()
    return torch.where(finite_R, values_R, 0.0).sum(dtype=torch.float64), finite_R.sum()


def to_numbers(named: Mapping[str, Partial]) -> dict[str, Measured]:
    """The tensors as numbers, fetched from the device at once."""
    counted = {name: partial for name, partial in named.items() if not isinstance(partial, Kept)}
    kept = {name: partial for name, partial in named.items() if isinstance(partial, Kept)}
    if not counted:
        return {**kept}
    flat = torch.stack([value.double() for pair in counted.values() for value in pair]).tolist()
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {name: Metric(*pair) for name, pair in zip(counted, pairs, strict=True)} | kept
