"""What a block of steps is, on either side, and a side's processes seen from outside."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psutil


@dataclass(frozen=True)
class Block:
    """Consecutive whole steps. seconds, tokens: of each; cpu_s: of all processes of the side, per step.

    parts_s: what the step's seconds were spent on, their mean, where a side tells
    """

    seconds: list[float]
    tokens: list[int]
    cpu_s: float
    parts_s: Mapping[str, float] = field(default_factory=dict)


class Processes:
    """Process trees that are measured, stopped and continued together. Ends of processes are not its business."""

    def __init__(self, roots: Sequence[int]) -> None:
        self.roots = roots

    def members(self) -> list[psutil.Process]:
        roots = [psutil.Process(pid) for pid in self.roots]
        return [member for root in roots for member in (root, *root.children(recursive=True))]

    def cpu_s(self) -> float:
        """User and system seconds that the processes have used so far."""
        times = [process.cpu_times() for process in self.members()]
        return sum(time.user + time.system for time in times)

    def stop(self) -> None:
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        for process in self.members():
            process.send_signal(number)
