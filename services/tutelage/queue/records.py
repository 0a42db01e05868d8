"""What the queue in memory keeps of a job, and of the unfinished jobs of one queue."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from tutelage.queue.base import Answer, Failure, Job


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
    history: tuple[Failure, ...] = ()

    def tell(self, what: str, at_s: float) -> None:
        self.history += (Failure(self.worker, " ".join(what.split()), at_s),)


@dataclass(slots=True)
class Line:
    """The unfinished jobs of one queue in order: waiting by arrival, leased by delivery.

    workers: when each of them asked last
    """

    waiting: dict[str, Record] = field(default_factory=dict)
    leased: dict[str, Record] = field(default_factory=dict)
    workers: dict[str, float] = field(default_factory=dict)

    def even_part(self, since: float) -> int:
        """Of what waits, an even part for each worker that asked after `since`: none takes what another could begin."""
        workers = sum(asked > since for asked in self.workers.values())
        return max(1, math.ceil(len(self.waiting) / max(1, workers)))

    def live(self) -> list[Record]:
        return [*self.waiting.values(), *self.leased.values()]
