"""The contract of the queue: work in flight between students and teachers, never truth.

Delivery is at least once. A job is added once by its id; its answer is stored before the job is acknowledged; a worker
that lost its lease cannot acknowledge; a job that failed `max_deliveries` times goes to the dead letters, and whoever
waits for it is told. Consumers of answers dedupe by job id.

What waits or is leased is bounded, by tokens and by bytes of each queue: a job that does not fit is not added, and who
asks waits with it. Nothing is ever taken out to make room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

TURN_S = 5.0  # how long a run that found no room goes first without asking again


@dataclass(frozen=True, slots=True)
class Job:
    """One question for one teacher.

    id: derived from what is asked, so that asking again is the same job
    queue: the teacher's name; reply_to: where the answer is announced, one stream a run
    tokens: cost estimate in tokens, for admission and autoscaling; payload: an encoded score or reward request
    traceparent, tracestate: W3C's trace context of whoever asks, for what the worker tells of it
    """

    id: str
    queue: str
    reply_to: str
    run_id: str
    tokens: int
    payload: bytes
    traceparent: str = ""
    tracestate: str = ""


class Put(StrEnum):
    """What became of an added job."""

    ADDED = "added"
    QUEUED = "queued"  # the same id is waiting or being worked on
    ANSWERED = "answered"  # its answer is there already and has been announced again to the job's reply_to
    DEAD = "dead"  # it was given up before; replay it to try again
    FULL = "full"  # it was not added, there is no room for it; ask again once others have ended


@dataclass(frozen=True, slots=True)
class Delivery:
    """A job leased to one worker. `attempt` counts from 1, `receipt` is the queue's own handle."""

    job: Job
    worker: str
    attempt: int
    receipt: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a job: its result, or the reason why it was given up."""

    job_id: str
    payload: bytes | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """How one delivery of a job ended without an answer. at_s: seconds by the queue's clock, on a server since 1970"""

    worker: str
    reason: str
    at_s: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up. attempts: deliveries since it was put; history: how each of them ended, in order"""

    job_id: str
    run_id: str
    attempts: int
    reason: str
    history: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Depth:
    """waiting: not yet delivered; leased: delivered, not acknowledged; dead: given up; oldest_s: age of the oldest.

    tokens, bytes: of the waiting and the leased, which admission counts
    Since the queue began: redelivered, deliveries that were not the first of their job; buried, jobs that were given
    up; duplicates, answers without effect, as their job had ended or another worker had it by then.
    """

    waiting: int
    leased: int
    dead: int
    oldest_s: float | None
    tokens: int = 0
    bytes: int = 0
    redelivered: int = 0
    buried: int = 0
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class ServerMemory:
    """Of the server behind all queues. limit_bytes: None where it has none"""

    used_bytes: int
    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How long things live: lease and answers in seconds; blobs over `inline_bytes` are stored beside the stream.

    max_tokens, max_bytes: of the jobs of one queue that wait or are leased, by their payloads; a job that is larger by
    itself is added once there is no other
    """

    lease_s: float = 30.0
    max_deliveries: int = 3
    answer_ttl_s: float = 24 * 3600.0
    inline_bytes: int = 4096
    max_tokens: int = 2**24
    max_bytes: int = 2**29


class Queue(Protocol):
    async def put(self, jobs: Sequence[Job]) -> list[Put]:
        """Add the jobs, each by its own id; what became of each, in order.

        From the first of a queue that finds no room on, no new one of that queue is added. The run that so got nothing
        in is next: until it asks again, for at most `TURN_S`, no other run's jobs enter that queue.
        """
        ...

    async def lease(self, queue: str, worker: str, *, count: int, wait_s: float) -> list[Delivery]:
        """Up to `count` jobs for `worker`: expired leases of others first, then waiting jobs; waits up to `wait_s`.

        Of waiting jobs not more than an even part for each worker that asked in the last `lease_s`.
        """
        ...

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Extend the leases; returns the deliveries that are no longer this worker's."""
        ...

    async def answer(self, answered: Sequence[tuple[Delivery, bytes]]) -> list[bool]:
        """Store each answer, announce it, acknowledge. False: that lease was lost and nothing of it was changed."""
        ...

    async def fail(self, delivery: Delivery, reason: str, *, retry: bool = True) -> bool:
        """Give the job back for another delivery, or to the dead letters when it had its last (or not `retry`)."""
        ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Hand leased jobs back at shutdown; this delivery does not count."""
        ...

    async def answers(self, reply_to: str, *, after: str, wait_s: float) -> tuple[list[Answer], str]:
        """Answers announced after the cursor `after` ("0": all) and the new cursor; waits up to `wait_s` for one."""
        ...

    async def fetch(self, job_id: str) -> Answer | None:
        """The answer of a job if it has one."""
        ...

    async def depth(self, queue: str) -> Depth: ...

    async def memory(self) -> ServerMemory | None:
        """None where there is no server, or its user may not ask."""
        ...

    async def dead_letters(self, queue: str) -> list[DeadLetter]: ...

    async def replay(self, queue: str, job_id: str) -> bool:
        """Put a dead letter back to work with its delivery count at zero. False: there is no such dead letter."""
        ...

    async def discard(self, queue: str, job_id: str) -> bool:
        """Forget a dead letter; who asks again adds the job anew. False: there is no such dead letter."""
        ...

    async def cancel(self, run_id: str) -> int:
        """Forget the run's waiting and leased jobs; workers that hold one lose the lease. Returns how many."""
        ...

    async def close(self) -> None: ...
