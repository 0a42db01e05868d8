"""What the queue in memory keeps of a job, and of the unfinished jobs of one queue."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from tutelage.queue.base import TURN_S, Answer, Failure, Job, QueueLimits


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

    workers: when each of them asked last; tokens, bytes: of the jobs
    redelivered, buried, duplicates: see `Depth`
    turn: the run that goes first, and until when
    """

    waiting: dict[str, Record] = field(default_factory=dict)
    leased: dict[str, Record] = field(default_factory=dict)
    workers: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    bytes: int = 0
    redelivered: int = 0
    buried: int = 0
    duplicates: int = 0
    turn: tuple[str, float] | None = None

    def enter(self, record: Record, state: Literal["waiting", "leased"]) -> None:
        """Put it at the end of those that wait or are leased, wherever it was."""
        self.leave(record)
        record.state = state
        (self.waiting if state == "waiting" else self.leased)[record.job.id] = record
        self.tokens += record.job.tokens
        self.bytes += len(record.job.payload)

    def leave(self, record: Record) -> None:
        if self.waiting.pop(record.job.id, None) or self.leased.pop(record.job.id, None):
            self.tokens -= record.job.tokens
            self.bytes -= len(record.job.payload)

    def admits(self, job: Job, limits: QueueLimits, now_s: float, before: bool | None) -> bool:
        """Whether a new job enters. before: whether the last new one of its call did; None: there was none."""
        if before is False:
            return False
        is_turn = self.turn is None or self.turn[1] <= now_s or self.turn[0] == job.run_id
        tokens, size = self.tokens + job.tokens, self.bytes + len(job.payload)
        fits = tokens <= limits.max_tokens and size <= limits.max_bytes
        if is_turn and (fits or not (self.waiting or self.leased)):
            self.turn = None
            return True
        if is_turn and before is None:
            self.turn = (job.run_id, now_s + TURN_S)
        return False

    def even_part(self, since: float) -> int:
        """Of what waits, an even part for each worker that asked after `since`: none takes what another could begin."""
        workers = sum(asked > since for asked in self.workers.values())
        return max(1, math.ceil(len(self.waiting) / max(1, workers)))

    def live(self) -> list[Record]:
        return [*self.waiting.values(), *self.leased.values()]
