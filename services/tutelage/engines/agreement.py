"""Whether two answers to one question can be those of one model: engines round otherwise from call to call.

Probabilities and log-probs are both held to a limit. The first alone is blind where tokens are improbable, and there a
student is corrected most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLOOR = -20.0  # a token below it is out of the question; how far is a matter of rounding


@dataclass(frozen=True, slots=True)
class _Limits:
    probability: float
    nats: float


_FLOAT32 = _Limits(probability=0.01, nats=0.05)
# A logit of 16 to 32 has steps of 0.125 in bfloat16, and another batch moves it and the normaliser by a step or two.
# Eight bits are no finer, nor may a server be that does not say what it computes in.
_COARSER = _Limits(probability=0.05, nats=0.5)


def gap_nats(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The most that log-probs of one shape differ; NaN where one is in them."""
    return float(np.abs(np.maximum(one, _FLOOR) - np.maximum(other, _FLOOR)).max(initial=0.0))


def disagreement(one: NDArray[Any], other: NDArray[Any], dtype: str) -> str | None:
    """What is too far off between log-probs of one shape, None if nothing is. dtype: of the model"""
    limits = _FLOAT32 if dtype == "float32" else _COARSER
    probability = float(np.abs(np.exp(one) - np.exp(other)).max(initial=0.0))
    if not probability <= limits.probability:
        return f"a probability is off by {probability:.3g}, allowed are {limits.probability}"
    nats = gap_nats(one, other)
    if not nats <= limits.nats:
        return f"a log-probability is off by {nats:.3g} nats, allowed are {limits.nats}"
    return None
