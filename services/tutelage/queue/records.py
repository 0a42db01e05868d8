"""What the queue in memory keeps of a job, and of the unfinished jobs of one queue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tutelage.queue.base import Answer, Job


@dataclass(slots=True)
class Record:
    """One job. `asked` maps each reply stream to the run that reads it; `until` ends the lease or the record."""

    job: Job
    put_at: float
    asked: dict[str, str]
    state: Literal["waiting", "leased", "answered", "dead"] = "waiting"
    attempts: int = 0
    worker: str = ""
    receipt: str = ""
    until: float = 0.0
    answer: Answer | None = None
    history: tuple[str, ...] = ()

    def tell(self, what: str) -> None:
        self.history += (f"{self.worker}: {' '.join(what.split())}",)


@dataclass(slots=True)
class Line:
    """The unfinished jobs of one queue in order: waiting by arrival, leased by delivery."""

    waiting: dict[str, Record] = field(default_factory=dict)
    leased: dict[str, Record] = field(default_factory=dict)

    def live(self) -> list[Record]:
        return [*self.waiting.values(), *self.leased.values()]
