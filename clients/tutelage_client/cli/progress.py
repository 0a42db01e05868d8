"""What is known of a run that is followed: its status, its newest figures, its speed. Built from its events alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tutelage_client.cli.show import count, number
from tutelage_client.wire import EventView

WINDOW = 20
LINES_A_RUN = 20
FIGURES = {"reverse_kl": "KL", "accuracy": "accuracy"}


@dataclass(frozen=True, slots=True)
class Mark:
    """A step as it was reported: when, and what its text was."""

    step: int
    at: datetime
    tokens: float
    seconds: float


@dataclass
class Progress:
    """first, last: the first and the last known value of each metric, by its name; newest: those of the last report."""

    steps: int
    step: int = 0
    status: str = "queued"
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    newest: dict[str, float] = field(default_factory=dict)
    marks: deque[Mark] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def take(self, event: EventView) -> None:
        """Add what one event says."""
        if event.type == "state":
            self.status = str(event.data.get("to", self.status))
            self.marks.clear()  # the time between two attempts says nothing of their speed
        elif event.type == "metrics":
            self._measure(event)

    def _measure(self, event: EventView) -> None:
        found = {name: float(value) for name, value in event.data.items() if isinstance(value, int | float)}
        self.step = int(found.pop("step", self.step))
        self.first = found | self.first
        self.last |= found
        self.newest = found
        mark = Mark(self.step, event.created_at, found.get("tokens", 0.0), found.get("seconds", 0.0))
        self.marks.append(mark)

    @property
    def tokens_per_s(self) -> float | None:
        """Of the student's text, over the newest steps, evaluation and checkpoints not counted."""
        seconds = sum(mark.seconds for mark in self.marks)
        return sum(mark.tokens for mark in self.marks) / seconds if seconds > 0 else None

    @property
    def left_s(self) -> float | None:
        """Seconds until the last step at the pace of the newest ones, everything counted; None once it is done."""
        if len(self.marks) < 2 or self.status != "running" or self.step >= self.steps:
            return None
        begin, end = self.marks[0], self.marks[-1]
        done = end.step - begin.step
        return (self.steps - end.step) * (end.at - begin.at).total_seconds() / done if done > 0 else None

    def figures(self, measured: Mapping[str, float]) -> list[str]:
        """The figures in `measured` (`last` or `newest`), what matters most first, then speed and time left."""
        parts = [f"{label} {number(measured[name])}" for name, label in FIGURES.items() if name in measured]
        if self.tokens_per_s is not None:
            parts.append(f"{count(self.tokens_per_s)} tok/s")
        if self.left_s is not None:
            parts.append(f"{_clock(self.left_s)} left")
        return parts

    def changes(self) -> str:
        """How the figures moved from the first to the newest."""
        moved = [
            f"{label} {number(self.first[name])} -> {number(self.last[name])}"
            for name, label in FIGURES.items()
            if name in self.last
        ]
        return ", ".join(moved)


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}" if minutes >= 60 else f"{minutes}:{second:02d}"
