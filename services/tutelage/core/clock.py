"""TAID's clock: the teacher's share in a mixture rises faster while the loss falls (arXiv:2501.16937)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tutelage.core.targets import Target

# As in the released code.
DECAY = 0.99
RATE = 5e-4


@dataclass(frozen=True, slots=True)
class Clock:
    """share: the teacher's at the next step, None before the first; trend: momentum of the loss's relative fall."""

    share: float | None = None
    trend: float = 0.0
    loss: float | None = None


def advanced(clock: Clock, target: Target, step: int, loss: float | None) -> Clock:
    """The clock before optimiser step `step`, once the step before it had this loss; None: nothing was learned.

    m <- 0.99 m + 0.01 (previous - loss) / previous; t <- min(end, max(linear, t + 5e-4 sigmoid(m) (1 - t))).
    """
    linear, before = target.at(step).weight, target.at(step - 1).weight if clock.share is None else clock.share
    end = target.weight if target.final_weight is None else target.final_weight
    if loss is None:
        return Clock(min(end, max(linear, before)), clock.trend, clock.loss)
    fall = (clock.loss - loss) / clock.loss if clock.loss else 0.0
    trend = DECAY * clock.trend + (1 - DECAY) * fall
    rise = RATE / (1 + math.exp(-trend)) * (1 - before)
    return Clock(min(end, max(linear, before + rise)), trend, loss)
