"""From a rollout to a job on the queue. Adding a job is idempotent, so asking again is always safe."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tutelage.queue.base import Job, Put, Queue
from tutelage.trainer.marking import Question
from tutelage.trainer.questions import job_id, question
from tutelage.trainer.watching import NOTHING, Watched
from tutelage_client.errors import ServiceUnreachable
from tutelage_client.spec import RunSpec, teacher_for
from tutelage_client.wire import (
    EntryDtype,
    RewardItem,
    RewardRequest,
    Rollout,
    ScoreRequest,
    encode_request,
    encode_reward_request,
)

log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass
class Asker:
    """Asks the teachers of one run, each on its own stream, for scores, for rewards, or for both.

    candidates: names the student's own top tokens where they are wanted; item: what is graded of a rollout
    hidden_dtypes: of each teacher whose hidden states lose nothing in fewer bits than float32's
    watched: of each teacher, what it is asked for diagnostics alone
    """

    queue: Queue
    run_id: str
    spec: RunSpec
    candidates: Callable[[Rollout], NDArray[np.int32]] | None = None
    item: Callable[[Rollout], RewardItem] | None = None
    hidden_dtypes: Mapping[str, EntryDtype] = field(default_factory=dict)
    watched: Mapping[str, Watched] = field(default_factory=dict)

    async def question(self, rollout: Rollout) -> Question:
        """What the objective wants to know of this rollout."""
        ids = None if self.candidates is None else await asyncio.to_thread(self.candidates, rollout)
        teacher = teacher_for(self.spec.teachers, rollout.tag)
        dtype = self.hidden_dtypes.get(teacher.name, "float32")
        request = question(self.spec, rollout, ids, dtype, self.watched.get(teacher.name, NOTHING))
        return self._asked([rollout], request, encode_request(request), ids)

    def reward_question(self, rollouts: Sequence[Rollout]) -> Question:
        """What rewards these rollouts, all of one tag, in one question."""
        assert self.item is not None
        assert self.spec.reward is not None
        request = RewardRequest(items=[self.item(rollout) for rollout in rollouts], reward=self.spec.reward.by)
        return self._asked(rollouts, request, encode_reward_request(request), None)

    def _asked(
        self,
        rollouts: Sequence[Rollout],
        request: ScoreRequest | RewardRequest,
        payload: bytes,
        ids: NDArray[np.int32] | None,
    ) -> Question:
        teacher = teacher_for(self.spec.teachers, rollouts[0].tag)
        job = Job(
            id=job_id(self.run_id, rollouts, teacher.name, payload, attempt=1),
            queue=teacher.name,
            reply_to=self.run_id,
            run_id=self.run_id,
            tokens=sum(len(rollout.prompt_ids) + len(rollout.completion_ids) for rollout in rollouts),
            payload=payload,
        )
        return Question(teacher, tuple(rollouts), request, ids, job, attempt=1)

    def again(self, question: Question) -> Question:
        """The same question as another job, whose answer the queue does not have yet."""
        attempt = question.attempt + 1
        own_id = job_id(self.run_id, question.rollouts, question.teacher.name, question.job.payload, attempt)
        return replace(question, job=replace(question.job, id=own_id), attempt=attempt)

    async def put(self, jobs: Sequence[Job]) -> list[Put]:
        """Add the jobs, however long the queue is away: nothing is lost by waiting."""
        return await _insist(lambda: self.queue.put(jobs))

    async def cancel(self) -> None:
        """Take back whatever of the run is in the queue, once nobody waits for it any more."""
        await _insist(lambda: self.queue.cancel(self.run_id))


async def _insist(call: Callable[[], Awaitable[Result]]) -> Result:
    delay_s = 0.1
    while True:
        try:
            return await call()
        except ServiceUnreachable as error:
            log.warning("queue not reachable, waiting", extra={"reason": str(error)})
        await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))
        delay_s = min(delay_s * 2, 5.0)
