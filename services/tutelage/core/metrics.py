"""Metrics as sums and counts per token, added over chunks, micro-batches and processes, and divided once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.core.kl import floored, forward_kl, reverse_kl
from tutelage.core.stabilizers import ratio
from tutelage.core.support import Aligned

# How two partial values become one, and what is shown: a mean unless named here.
TOTALS = frozenset({"tokens"})
MAXIMA = frozenset({"ratio_max"})


class Metric(NamedTuple):
    """A sum over tokens and how many they were; of a maximum the sum is the largest value."""

    sum: float
    tokens: float


Partial = tuple[Tensor, Tensor]


def merge(parts: Iterable[Mapping[str, Metric]]) -> dict[str, Metric]:
    """One set of metrics for several micro-batches or processes."""
    merged: dict[str, Metric] = {}
    for part in parts:
        for name, metric in part.items():
            merged[name] = _join(name, merged[name], metric) if name in merged else metric
    return merged


def _join(name: str, one: Metric, other: Metric) -> Metric:
    total = max(one.sum, other.sum) if name in MAXIMA else one.sum + other.sum
    return Metric(total, one.tokens + other.tokens)


def values(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """What people read: means, totals and maxima; a metric that counted nothing is left out."""
    whole = TOTALS | MAXIMA
    return {name: m.sum if name in whole else m.sum / m.tokens for name, m in metrics.items() if m.tokens}


def over(values_R: Tensor) -> Partial:
    """Sum and count of the finite values."""
    finite_R = values_R.isfinite()
    return torch.where(finite_R, values_R, 0.0).sum(dtype=torch.float64), finite_R.sum()


def entropy(logp_RV: Tensor) -> Tensor:
    """Nats per row."""
    return -(logp_RV.exp() * floored(logp_RV)).sum(-1)


def of_whole(aligned: Aligned) -> dict[str, Partial]:
    """Exact values, where both full distributions are there and before any clip."""
    return {
        "reverse_kl": over(reverse_kl(*aligned)),
        "forward_kl": over(forward_kl(*aligned)),
        "teacher_entropy": over(entropy(aligned.teacher_logp_RS)),
    }


def of_sampled(log_ratio_R: Tensor, max_nats: float | None) -> dict[str, Partial]:
    """From log q(y) - log p(y) of the written tokens.

    reverse_kl is the sampled mean, unbiased on the student's own text; signal_clip_fraction is the share of written
    tokens whose own log-ratio is beyond the clip: on such text the student's mass on clipped entries, for any support.
    """
    named = {"log_ratio": over(log_ratio_R), "reverse_kl": over(-log_ratio_R)}
    if max_nats is not None:
        beyond_R = (log_ratio_R.abs() > max_nats).double()
        named["signal_clip_fraction"] = over(beyond_R.masked_fill(log_ratio_R.isnan(), torch.nan))
    return named


def of_behaviour(
    logp_R: Tensor, behaviour_logprob_R: Tensor | None, bounds: tuple[float, float] | None
) -> dict[str, Partial]:
    """From p / mu of the written tokens that have a behaviour policy."""
    if behaviour_logprob_R is None:
        return {}
    ratio_R = ratio(logp_R, behaviour_logprob_R).double()
    absent_R, mean = ratio_R.isnan(), over(ratio_R)
    named = {"ratio": mean, "ratio_max": (ratio_R.masked_fill(absent_R, 0.0).max(), mean[1])}
    if bounds is not None:
        outside_R = ((ratio_R < bounds[0]) | (ratio_R > bounds[1])).double()
        named["ratio_clip_fraction"] = over(outside_R.masked_fill(absent_R, torch.nan))
    return named


def to_numbers(named: Mapping[str, Partial]) -> dict[str, Metric]:
    """The tensors as numbers, fetched from the device at once."""
    if not named:
        return {}
    flat = torch.stack([value.double() for pair in named.values() for value in pair]).tolist()
    return {name: Metric(*pair) for name, pair in zip(named, zip(flat[::2], flat[1::2], strict=True), strict=True)}
