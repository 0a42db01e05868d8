"""Timing of two callables in turn, and the form of a benchmark's result."""

from __future__ import annotations

import os
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any


@dataclass(frozen=True)
class Target:
    """What is wanted of one figure of a cell, and whether it was met there."""

    figure: str
    at_most: float
    met: bool


def target(counted: Mapping[str, float], figure: str, at_most: float) -> Target:
    return Target(figure, at_most, counted[figure] <= at_most)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One comparison: medians in milliseconds, the ratio theirs/ours with its 95 % bootstrap interval.

    Without a peer there is `ours` alone; `equal` then speaks of a reference computed in the same run.
    """

    cell: str
    peer: dict[str, Any] | None
    ours: float
    theirs: float | None = None
    ratio: float | None = None
    ci: tuple[float, float] | None = None
    equal: bool
    counted: Mapping[str, float] = field(default_factory=dict)
    target: Target | None = None


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that so large a share of them does not exceed."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def paired(ours: Callable[[], Any], theirs: Callable[[], Any], repetitions: int) -> tuple[list[float], list[float]]:
    """Milliseconds of both, A B A B, after one run of each that does not count."""
    ours()
    theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repetitions):
        for call, into in ((ours, times[0]), (theirs, times[1])):
            begun_ns = time.perf_counter_ns()
            call()
            into.append((time.perf_counter_ns() - begun_ns) / 1e6)
    return times


def interval(ratios: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the median of paired ratios."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(1000))
    return medians[25], medians[974]


def load_1min() -> float:
    """How many programs wanted to run in the last minute: what else disturbed a cell that ended now."""
    return os.getloadavg()[0]


def described(name: str, cells: list[Cell]) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    device = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return {"name": name, "device": device, "commit": commit.stdout.strip(), "cells": [asdict(cell) for cell in cells]}
