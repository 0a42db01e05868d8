"""What a fault of a soak is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from needs import Need
from stage import Stage

STEP_S, RESTART_S = 20.0, 90.0  # a step with its questions; a lease that runs out and a process that imports torch


@dataclass(frozen=True)
class Harm:
    """row: of the matrix; within_s: until the next step counts, or the run ends, after the cause is gone

    do: returns when the cause is gone, with the id of the run that suffered where it is one beside the main one
    needs: what the stage must have
    """

    row: int
    within_s: float
    do: Callable[[Stage, Random], Awaitable[str | None]]
    needs: tuple[Need, ...] = ()
