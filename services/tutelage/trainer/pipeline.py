"""From rollouts to scored rollouts, through the queue, while sampling goes on.

Every rollout becomes a question the moment it ends. Answers are read beside that; the same job may be announced twice,
its effect is taken once. What is outstanding is asked again from time to time: adding a job is idempotent, so this
costs nothing while the queue is well and rebuilds the work after it lost its memory.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tutelage.queue.base import Answer, Job, Put, Queue
from tutelage.trainer.exits import TeacherFailed
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.questions import checked, job_id, question
from tutelage.trainer.session import Session
from tutelage_client.errors import BadScores, ServiceUnreachable
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Provenance, Rollout, ScoreRequest, TokenScores, decode_reply, encode_request

log = logging.getLogger(__name__)

# A reply that breaks the contract is asked for again, under a new job id, this many times in all.
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Scored:
    """A rollout with what the teacher said of it; `scores` is None where nobody asked or no valid answer came."""

    rollout: Rollout
    scores: TokenScores | None
    candidate_ids: NDArray[np.int32] | None = None


@dataclass
class Timeline:
    """When things happened in a step, by one monotonic clock."""

    first_question_s: float | None = None
    first_answer_s: float | None = None
    last_rollout_s: float | None = None
    last_answer_s: float | None = None

    @property
    def overlap_s(self) -> float | None:
        """How long before the last rollout ended the first score was there; negative when there was no overlap."""
        if self.first_answer_s is None or self.last_rollout_s is None:
            return None
        return self.last_rollout_s - self.first_answer_s


@dataclass(slots=True)
class Outstanding:
    rollout: Rollout
    request: ScoreRequest
    candidate_ids: NDArray[np.int32] | None
    job: Job
    attempt: int


@dataclass
class Pipeline:
    """Asks one teacher about rollouts. `candidates` names the student's own top tokens where they are wanted."""

    queue: Queue
    session: Session
    spec: RunSpec
    teacher: str
    provenance: Provenance
    candidates: Callable[[Rollout], NDArray[np.int32]] | None
    ledger: Ledger
    ask_again_s: float = 10.0
    _cursor: str = "0"
    _outstanding: dict[str, Outstanding] = field(default_factory=dict)
    _done: list[Scored] = field(default_factory=list)

    async def scored(self, rollouts: AsyncIterator[Rollout]) -> tuple[list[Scored], Timeline]:
        """All rollouts of a step with their scores, in the order of their ids.

        Raises:
            TeacherFailed: the teacher answers with something that is not a score, or every question was given up.
        """
        timeline, count = Timeline(), 0
        self._done = []
        reader = asyncio.create_task(self._read(timeline))
        try:
            async for rollout in rollouts:
                count += 1
                await self._ask(rollout, attempt=1)
                timeline.first_question_s = timeline.first_question_s or time.monotonic()
                self._raise_if_failed(reader)
            timeline.last_rollout_s = time.monotonic()
            while len(self._done) < count:
                self._raise_if_failed(reader)
                self.session.check()
                await asyncio.wait([reader], timeout=0.05)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        if count and all(s.scores is None for s in self._done):
            raise TeacherFailed("no_scores", f"teacher {self.teacher!r} gave up every question of this step")
        return sorted(self._done, key=lambda s: s.rollout.id), timeline

    def _raise_if_failed(self, reader: asyncio.Task[None]) -> None:
        if reader.done():
            reader.result()

    async def _ask(self, rollout: Rollout, attempt: int) -> None:
        ids = None if self.candidates is None else await asyncio.to_thread(self.candidates, rollout)
        request = question(self.spec, rollout, ids)
        payload = encode_request(request)
        job = Job(
            id=job_id(self.session.run_id, rollout, self.teacher, payload, attempt),
            queue=self.teacher,
            reply_to=self.session.run_id,
            run_id=self.session.run_id,
            tokens=len(rollout.prompt_ids) + len(rollout.completion_ids),
            payload=payload,
        )
        self._outstanding[job.id] = Outstanding(rollout, request, ids, job, attempt)
        await self._put(job)

    async def _put(self, job: Job) -> None:
        """Add the job, however long the queue is away: nothing is lost by waiting."""
        delay_s = 0.1
        while True:
            try:
                put = await self.queue.put(job)
            except ServiceUnreachable as error:
                log.warning("queue not reachable, waiting", extra={"reason": str(error)})
                self.session.check()
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))
                delay_s = min(delay_s * 2, 5.0)
                continue
            if put == Put.DEAD:
                await self._give_up(job.id, "it was given up before")
            return

    async def _read(self, timeline: Timeline) -> None:
        asked_s = heard_s = time.monotonic()
        reply_to = self.session.run_id
        while True:
            try:
                answers, self._cursor = await self.queue.answers(reply_to, after=self._cursor, wait_s=1.0)
            except ServiceUnreachable as error:
                log.warning("queue not reachable, waiting", extra={"reason": str(error)})
                answers = []
                await asyncio.sleep(0.5)
            now_s = time.monotonic()
            for answer in answers:
                heard_s = asked_s = now_s
                await self._take(answer, timeline)
            self.session.conditions["teacher_available"] = not self._outstanding or now_s - heard_s < self.ask_again_s
            if self._outstanding and now_s - asked_s > self.ask_again_s:
                asked_s = now_s
                for waiting in list(self._outstanding.values()):
                    await self._put(waiting.job)

    async def _take(self, answer: Answer, timeline: Timeline) -> None:
        waiting = self._outstanding.get(answer.job_id)
        if waiting is None:
            return
        if answer.payload is None:
            await self._give_up(answer.job_id, answer.reason or "no reason given")
            return
        try:
            reply = decode_reply(answer.payload)
            scores = checked(waiting.request, reply, self.provenance)
        except BadScores as error:
            await self._bad_reply(answer.job_id, waiting, str(error))
            return
        self.ledger.charge(reply.usage)
        now_s = time.monotonic()
        timeline.first_answer_s = timeline.first_answer_s or now_s
        timeline.last_answer_s = now_s
        del self._outstanding[answer.job_id]
        self._done.append(Scored(waiting.rollout, scores, waiting.candidate_ids))

    async def _bad_reply(self, job: str, waiting: Outstanding, reason: str) -> None:
        await self.session.event("teacher", f"a reply of {self.teacher!r} was refused: {reason}", "warning")
        if waiting.attempt >= MAX_ATTEMPTS or "changed" in reason:
            raise TeacherFailed("bad_scores", f"teacher {self.teacher!r} does not answer with scores: {reason}")
        del self._outstanding[job]
        await self._ask(waiting.rollout, waiting.attempt + 1)

    async def _give_up(self, job: str, reason: str) -> None:
        waiting = self._outstanding.pop(job, None)
        if waiting is None:  # heard both from the queue's announcement and from asking again
            return
        message = f"rollout {waiting.rollout.id} is left out: {reason}"
        if self.spec.teachers[0].on_loss == "fail":
            raise TeacherFailed("question_failed", message)
        await self.session.event("teacher", message, "warning", rollout=waiting.rollout.id)
        self.ledger.dropped_rollouts += 1
        self._done.append(Scored(waiting.rollout, None))
