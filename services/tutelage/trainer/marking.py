"""The questions of one step and what came of them. A question ends once, whatever is heard of it afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.queue.base import Job
from tutelage_client.spec import TeacherRef
from tutelage_client.wire import Reward, RewardRequest, Rollout, ScoreRequest, TokenScores, Usage

# Why a rollout has not all its marks: its teacher gave a question about it up, or was lost.
LeftOut = Literal["dead_lettered", "skipped"]


@dataclass(frozen=True, slots=True)
class Scored:
    """A rollout with what was said of it; `scores` and `reward` are None where nobody asked or no answer came.

    teacher: the name of the one that was asked, and whose scores these are; left_out: why it has not all its marks
    advantage: by its reward, among those of the step; NaN: no valid reward, so it is not learned from
    """

    rollout: Rollout
    scores: TokenScores | None
    candidate_ids: NDArray[np.int32] | None = None
    reward: Reward | None = None
    advantage: float | None = None
    teacher: str | None = None
    left_out: LeftOut | None = None

    @property
    def key(self) -> str:
        """The rollout as one teacher marked it, in the run's history."""
        return f"{self.rollout.id}@{self.teacher or ''}"


def silenced(scored: Scored) -> Scored:
    """The same with nothing to learn in it."""
    rollout = scored.rollout
    return replace(scored, rollout=rollout.model_copy(update={"mask": np.zeros_like(rollout.mask)}))


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
    """One rollout, or a group that is judged together, on its way to a teacher.

    teacher: whose line it is, and so what happens if that one is lost; asked: the name of the one it is put to
    attempt: counts from 1 and goes up when a reply was refused
    """

    teacher: TeacherRef
    asked: str
    rollouts: tuple[Rollout, ...]
    request: ScoreRequest | RewardRequest
    candidate_ids: NDArray[np.int32] | None
    job: Job
    attempt: int


def unheard(_: Scored) -> None:
    """Nobody wants to know before all of a step are there."""


@dataclass
class Marking:
    """One step. Once abandoned it holds no question any more, so that late answers find nothing to change.

    arrive: told of each rollout when its last question has ended
    marked: what is known so far of each rollout that was asked about, by its id
    left_out: of those of which a question has no answer, why
    outside: by job id, the questions that found no room in their queue
    charges: what the answers cost, by teacher
    given_up: why a teacher gave a question up, of the last one
    whole: every question of the step is here
    """

    arrive: Callable[[Scored], None] = unheard
    timeline: Timeline = field(default_factory=Timeline)
    marked: dict[str, Scored] = field(default_factory=dict)
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    outside: dict[str, Question] = field(default_factory=dict)
    charges: list[tuple[str, Usage]] = field(default_factory=list)
    given_up: str | None = None
    whole: bool = False
    _unanswered: Counter[str] = field(default_factory=Counter)
    _outstanding: dict[str, Question] = field(default_factory=dict)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _inside: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def done(self) -> list[Scored]:
        """The rollouts of which every question has ended."""
        return [self._ended(name) for name in self.marked if not self._unanswered[name]]

    def _ended(self, rollout_id: str) -> Scored:
        return replace(self.marked[rollout_id], left_out=self.left_out.get(rollout_id))

    @property
    def outstanding(self) -> list[Question]:
        return list(self._outstanding.values())

    @property
    def has_marks(self) -> bool:
        """Whether a rollout has all its marks."""
        return any(scored.left_out is None for scored in self.done)

    def find(self, job_id: str) -> Question | None:
        """The question behind a job, if it still waits for its answer."""
        return self._outstanding.get(job_id)

    def holds(self, question: Question) -> bool:
        return question.job.id in self._outstanding

    def add(self, question: Question) -> None:
        self.timeline.first_question_s = self.timeline.first_question_s or time.monotonic()
        self._outstanding[question.job.id] = question
        for rollout in question.rollouts:
            self._unanswered[rollout.id] += 1
            self.marked.setdefault(rollout.id, Scored(rollout, None, teacher=question.asked))

    def admit(self, question: Question, *, is_inside: bool) -> None:
        """Note whether it found room in its queue."""
        if not is_inside and self.holds(question):
            self.outside[question.job.id] = question
            return
        self.outside.pop(question.job.id, None)
        if not self.outside:
            self._inside.set()

    def replace(self, question: Question, by: Question) -> None:
        """Wait for another job in place of this one."""
        self.admit(question, is_inside=True)
        del self._outstanding[question.job.id]
        self._outstanding[by.job.id] = by

    def end(self, question: Question, said: TokenScores | Sequence[Reward]) -> None:
        """The question's one answer: scores of its rollout, or rewards of its rollouts."""
        for index, rollout in enumerate(question.rollouts):
            known = self.marked[rollout.id]
            if isinstance(said, TokenScores):
                known = replace(known, scores=said, candidate_ids=question.candidate_ids, teacher=question.asked)
            else:
                teacher = question.asked if known.scores is None else known.teacher
                known = replace(known, reward=said[index], teacher=teacher)
            self.marked[rollout.id] = known
        self.timeline.last_answer_s = time.monotonic()
        self.timeline.first_answer_s = self.timeline.first_answer_s or self.timeline.last_answer_s
        self._forget(question)

    def leave_out(self, question: Question, why: LeftOut) -> None:
        """The question's end without an answer."""
        for rollout in question.rollouts:
            self.left_out.setdefault(rollout.id, why)
        self._forget(question)

    def _forget(self, question: Question) -> None:
        self.admit(question, is_inside=True)
        del self._outstanding[question.job.id]
        if not self._outstanding:
            self._idle.set()
        for rollout in question.rollouts:
            self._unanswered[rollout.id] -= 1
            if not self._unanswered[rollout.id]:
                self.arrive(self._ended(rollout.id))

    async def all_inside(self) -> None:
        """Wait until no question is without room in its queue."""
        while self.outside:
            self._inside.clear()
            await self._inside.wait()

    async def all_ended(self) -> None:
        """Wait until no question is outstanding."""
        while self._outstanding:
            self._idle.clear()
            await self._idle.wait()

    def abandon(self) -> None:
        for question in self._outstanding.values():
            for rollout in question.rollouts:
                self.marked.pop(rollout.id, None)
        self._outstanding.clear()
        self.outside.clear()


def by_teacher(questions: Iterable[Question]) -> dict[str, list[Question]]:
    """The questions by the name of who is asked, in order."""
    found: dict[str, list[Question]] = {}
    for question in questions:
        found.setdefault(question.asked, []).append(question)
    return found
