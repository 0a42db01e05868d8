"""From a rollout to a job on the queue. Adding a job is idempotent, so asking again is always safe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tutelage.queue.base import Job, Put, Queue
from tutelage.tracing import Attributes
from tutelage.trainer import sending
from tutelage.trainer.access import Access
from tutelage.trainer.marking import Question
from tutelage.trainer.presence import Presence
from tutelage.trainer.questions import job_id, question
from tutelage.trainer.watching import NOTHING, Watched
from tutelage_client.spec import RunSpec, TeacherRef, asked_now, teacher_for
from tutelage_client.tracing import CONTEXT, traceparent
from tutelage_client.wire import (
    EntryDtype,
    RewardItem,
    RewardRequest,
    Rollout,
    encode_request,
    encode_reward_request,
)


@dataclass
class Asker:
    """Asks the teachers of one run, each on its own stream, for scores, for rewards, or for both.

    candidates: names the student's own top tokens where they are wanted; item: what is graded of a rollout
    hidden_dtypes: of each teacher whose hidden states lose nothing in fewer bits than float32's
    watched: of each teacher, what it is asked for diagnostics alone
    presence: who of them is lost, so that another one is asked
    access: whether the queue's server takes and gives
    """

    queue: Queue
    run_id: str
    spec: RunSpec
    candidates: Callable[[Rollout], NDArray[np.int32]] | None = None
    item: Callable[[Rollout], RewardItem] | None = None
    hidden_dtypes: Mapping[str, EntryDtype] = field(default_factory=dict)
    watched: Mapping[str, Watched] = field(default_factory=dict)
    presence: Presence = field(default_factory=Presence)
    access: Access = field(default_factory=Access)

    async def question(self, rollout: Rollout) -> Question:
        """What the objective wants to know of this rollout."""
        ids = None if self.candidates is None else await asyncio.to_thread(self.candidates, rollout)
        return self._scores(rollout, ids, teacher_for(self.spec.teachers, rollout.tag))

    def reward_question(self, rollouts: Sequence[Rollout]) -> Question:
        """What rewards these rollouts, all of one tag, in one question."""
        assert self.item is not None
        assert self.spec.reward is not None
        request = RewardRequest(items=[self.item(rollout) for rollout in rollouts], reward=self.spec.reward.by)
        return self._rewards(rollouts, request, teacher_for(self.spec.teachers, rollouts[0].tag))

    def moved(self, question: Question) -> Question | None:
        """The same question put to whoever is asked now, where that is another one because this one is lost."""
        lost = self.presence.lost
        if question.asked not in lost or asked_now(question.teacher, lost) == question.asked:
            return None
        if isinstance(question.request, RewardRequest):
            return self._rewards(question.rollouts, question.request, question.teacher)
        (rollout,) = question.rollouts
        return self._scores(rollout, question.candidate_ids, question.teacher)

    def _scores(self, rollout: Rollout, ids: NDArray[np.int32] | None, teacher: TeacherRef) -> Question:
        asked = asked_now(teacher, self.presence.lost)
        dtype, watched = self.hidden_dtypes.get(asked, "float32"), self.watched.get(asked, NOTHING)
        request = question(self.spec, rollout, ids, dtype, watched)
        job = self._job([rollout], asked, encode_request(request))
        return Question(teacher, asked, (rollout,), request, ids, job, attempt=1)

    def _rewards(self, rollouts: Sequence[Rollout], request: RewardRequest, teacher: TeacherRef) -> Question:
        asked = asked_now(teacher, self.presence.lost)
        job = self._job(rollouts, asked, encode_reward_request(request))
        return Question(teacher, asked, tuple(rollouts), request, None, job, attempt=1)

    def _job(self, rollouts: Sequence[Rollout], asked: str, payload: bytes) -> Job:
        own_id = job_id(self.run_id, rollouts, asked, payload, attempt=1)
        return Job(
            id=own_id,
            queue=asked,
            reply_to=self.run_id,
            run_id=self.run_id,
            tokens=sum(len(rollout.prompt_ids) + len(rollout.completion_ids) for rollout in rollouts),
            payload=payload,
            traceparent=traceparent(self.run_id, own_id),
            tracestate=CONTEXT.get().tracestate,
        )

    def again(self, question: Question) -> Question:
        """The same question as another job, whose answer the queue does not have yet."""
        attempt = question.attempt + 1
        own_id = job_id(self.run_id, question.rollouts, question.asked, question.job.payload, attempt)
        job = replace(question.job, id=own_id, traceparent=traceparent(self.run_id, own_id))
        return replace(question, job=job, attempt=attempt)

    def leaves_out(self, question: Question) -> bool:
        """Whether the step may go on without an answer, as the teacher is lost; until it is back it is not asked."""
        return question.teacher.on_loss == "skip" and question.asked in self.presence.lost

    async def put(self, questions: Sequence[Question]) -> list[Put]:
        """Add their jobs, however long the queue is away: nothing is lost by waiting."""
        jobs, told = [question.job for question in questions], [_told(question) for question in questions]
        return await self.access.insist("questions", lambda: sending.put(self.queue, jobs, told))

    async def cancel(self) -> None:
        """Take back whatever of the run is in the queue, once nobody waits for it any more."""
        await self.access.insist("questions", lambda: self.queue.cancel(self.run_id))


def _told(question: Question) -> Attributes:
    """What the span of its job says beside what every job's does."""
    versions = [rollout.policy_version for rollout in question.rollouts]
    return {"opd.teacher": question.asked, "opd.policy_version": min(versions), "opd.rollouts": len(versions)}
