"""From rollouts to scored rollouts, through the queue, while sampling goes on.

Every rollout becomes a question as soon as it ends. One reader takes the answers of the whole run beside that; the same
job may be announced twice, its effect is taken once. What is outstanding is asked again from time to time: that costs
nothing while the queue is well and rebuilds the work after it lost its memory. What finds no room in the queue holds up
the writing, and is put again whenever answers came.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

from tutelage.queue.base import Answer
from tutelage.trainer.answers import Answers
from tutelage.trainer.exits import TeacherFailed
from tutelage.trainer.marking import Marking, Question, Scored, Timeline, by_teacher, unheard
from tutelage.trainer.outages import Outages
from tutelage.trainer.rewarding import Groups
from tutelage_client.errors import ServiceUnreachable
from tutelage_client.wire import Rollout

log = logging.getLogger(__name__)
READ_WAIT_S = 1.0
LONGEST_ROUND_S = 3.0
UNREACHABLE_WAIT_S = 0.5


class Pipeline:
    """The way to the teachers and back. The reader runs while the pipeline is entered, once a run.

    open: the steps under way, in order
    away_s: how long to hear nothing of a teacher before its questions are put again and it counts as away
    """

    def __init__(self, answers: Answers, away_s: float = 10.0) -> None:
        self.answers = answers
        self.outages = Outages(answers, away_s)
        self.open: list[Marking] = []

    async def __aenter__(self) -> Self:
        self._since_s = time.monotonic()
        self._reader = asyncio.create_task(self._read())
        self._teller = asyncio.create_task(self.answers.asker.access.tell_on(self.answers.session))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        self._teller.cancel()
        await asyncio.gather(self._reader, self._teller, return_exceptions=True)  # an error has reached the step

    async def scored(
        self, rollouts: AsyncIterator[list[Rollout]], arrive: Callable[[Scored], None] = unheard
    ) -> tuple[list[Scored], Timeline]:
        """All rollouts of a step with their scores, in the order of their ids. Cancel it to abandon the step.

        arrive: told of each as soon as nothing more is asked about it

        Raises:
            TeacherFailed: the teacher answers with something that is not a score, or every question was given up.
            TeacherOutage: as the spec says of a lost teacher.
        """
        return await self._marked(self._asked_of_step(rollouts), arrive)

    async def looked_at(self, rollouts: Sequence[Rollout]) -> list[Scored]:
        """The same of texts that no step learns from: they get scores and no rewards."""
        try:
            scored, _ = await self._marked(self._asked_for_scores(rollouts), unheard)
        except asyncio.CancelledError:
            self.outages.leave()
            raise
        return scored

    async def _marked(
        self, questions: AsyncIterator[list[Question]], arrive: Callable[[Scored], None]
    ) -> tuple[list[Scored], Timeline]:
        marking = Marking(arrive)
        self.open.append(marking)
        asking = asyncio.create_task(self._ask(marking, questions))
        try:
            await asyncio.wait({asking, self._reader}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                self._reader.result()
            await asking
        finally:
            marking.abandon()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            self.open.remove(marking)
        self.answers.settle(marking)
        if marking.done and not marking.has_marks:
            asked = ", ".join(sorted({repr(scored.teacher) for scored in marking.done}))
            sentence = f"teacher {asked} gave up every question of this step, the last one because: {marking.given_up}"
            raise TeacherFailed("no_scores", sentence)
        return sorted(marking.done, key=lambda s: s.rollout.id), marking.timeline

    async def _asked_of_step(self, rollouts: AsyncIterator[list[Rollout]]) -> AsyncIterator[list[Question]]:
        """What is asked about rollouts that end together, and at last of the groups that others left incomplete."""
        asker, groups = self.answers.asker, Groups(self.answers.asker.spec.rollout.samples_per_prompt)
        async for ended in rollouts:
            questions = [await asker.question(rollout) for rollout in ended] if asker.spec.asks_teacher_scores else []
            yield questions + self._judged(ended, groups)
        yield [asker.reward_question(group) for group in groups.rest()]

    async def _asked_for_scores(self, rollouts: Sequence[Rollout]) -> AsyncIterator[list[Question]]:
        yield [await self.answers.asker.question(rollout) for rollout in rollouts]

    async def _ask(self, marking: Marking, questions: AsyncIterator[list[Question]]) -> None:
        """Ask every question, then wait for the last answer."""
        async for some in questions:
            await self._put(marking, some)
        marking.timeline.last_rollout_s = time.monotonic()
        marking.whole = True
        await marking.all_ended()

    def _judged(self, ended: list[Rollout], groups: Groups) -> list[Question]:
        """What is asked of the teacher's judgement now: of each rollout, or of each group that is complete."""
        asker = self.answers.asker
        if not asker.spec.asks_teacher_rewards:
            return []
        together = asker.spec.reward is not None and asker.spec.reward.judged_together
        asked = groups.full(ended) if together else [[rollout] for rollout in ended]
        return [asker.reward_question(rollouts) for rollouts in asked]

    async def _put(self, marking: Marking, questions: list[Question]) -> None:
        for question in questions:
            marking.add(question)
        await self.answers.ask(marking, questions)
        if outside := by_teacher(marking.outside.values()):
            log.info("no room in the queue, waiting", extra={"teachers": sorted(outside)})
            await marking.all_inside()

    async def _read(self) -> None:
        cursor = "0"
        while True:
            answers, cursor = await self._next(cursor)
            for answer in answers:
                await self._take(answer)
            await self.outages.look(list(self.open))

    async def _take(self, answer: Answer) -> None:
        """Let the answer reach the step that waits for it; a late one tells that its teacher is back."""
        for marking in self.open:
            if marking.find(answer.job_id) is not None:
                await self.answers.take(marking, answer)
                return
        presence = self.answers.asker.presence
        if (teacher := presence.of_lost(answer.job_id)) is not None:
            presence.hear(teacher)

    async def _next(self, cursor: str) -> tuple[list[Answer], str]:
        """What is new since the cursor. A round in which the queue was away, or something else took long, is no silence
        of a teacher."""
        asker, wait_s = self.answers.asker, min(READ_WAIT_S, self.outages.shortest_s)
        try:
            read = await asker.queue.answers(asker.run_id, after=cursor, wait_s=wait_s)
        except ServiceUnreachable as error:
            log.warning("queue not reachable, waiting", extra={"reason": str(error)})
            asker.access.refuse("answers", str(error))
            await asyncio.sleep(UNREACHABLE_WAIT_S)
            self._since_s = time.monotonic()
            return [], cursor
        asker.access.grant("answers")
        now_s = time.monotonic()
        asker.presence.listen(min(now_s - self._since_s, LONGEST_ROUND_S))
        self._since_s = now_s
        return read
