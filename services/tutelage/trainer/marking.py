"""The questions of one step and what came of them. A question ends once, whatever is heard of it afterwards."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tutelage.queue.base import Job
from tutelage_client.wire import Rollout, ScoreRequest, TokenScores


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

    @property
    def wait_s(self) -> float | None:
        """How long the step stood still after the last rollout ended, for the rest of the scores."""
        if self.last_answer_s is None or self.last_rollout_s is None:
            return None
        return max(0.0, self.last_answer_s - self.last_rollout_s)


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A rollout on its way to the teacher. `attempt` counts from 1 and goes up when a reply was refused."""

    rollout: Rollout
    request: ScoreRequest
    candidate_ids: NDArray[np.int32] | None
    job: Job
    attempt: int


@dataclass
class Marking:
    """One step. Once abandoned it holds no question any more, so that late answers find nothing to change.

    heard_s, asked_s: when an answer of any kind last came, and when the questions were last put, while there are any
    """

    timeline: Timeline = field(default_factory=Timeline)
    done: list[Scored] = field(default_factory=list)
    heard_s: float = 0.0
    asked_s: float = 0.0
    _outstanding: dict[str, Question] = field(default_factory=dict)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def outstanding(self) -> list[Question]:
        return list(self._outstanding.values())

    def find(self, job_id: str) -> Question | None:
        """The question behind a job, if it still waits for its answer."""
        return self._outstanding.get(job_id)

    def holds(self, question: Question) -> bool:
        return question.job.id in self._outstanding

    def add(self, question: Question) -> None:
        now_s = time.monotonic()
        if not self._outstanding:
            self.heard_s = self.asked_s = now_s
        self.timeline.first_question_s = self.timeline.first_question_s or now_s
        self._outstanding[question.job.id] = question

    def replace(self, question: Question, by: Question) -> None:
        """Wait for another job in place of this one."""
        del self._outstanding[question.job.id]
        self._outstanding[by.job.id] = by

    def end(self, question: Question, scores: TokenScores | None) -> None:
        """The question's one end: its scores, or None when it was given up."""
        del self._outstanding[question.job.id]
        self.done.append(Scored(question.rollout, scores, question.candidate_ids if scores else None))
        if scores is not None:
            self.timeline.last_answer_s = time.monotonic()
            self.timeline.first_answer_s = self.timeline.first_answer_s or self.timeline.last_answer_s
        if not self._outstanding:
            self._idle.set()

    async def all_ended(self) -> None:
        """Wait until no question is outstanding."""
        while self._outstanding:
            self._idle.clear()
            await self._idle.wait()

    def abandon(self) -> None:
        self._outstanding.clear()
