"""What an answer does to the step that waits for it: scores, another try, or a rollout that is left out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tutelage.queue.base import Answer, Put
from tutelage.trainer.asking import Asker
from tutelage.trainer.exits import TeacherFailed
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.marking import Marking, Question, by_teacher
from tutelage.trainer.questions import TeacherChanged, checked, rewards_checked
from tutelage.trainer.session import Session
from tutelage_client.errors import BadScores
from tutelage_client.wire import (
    Provenance,
    Reward,
    RewardRequest,
    TokenScores,
    Usage,
    decode_reply,
    decode_reward_reply,
)

log = logging.getLogger(__name__)
# A reply that breaks the contract is asked for again, under a new job id, this many times in all.
MAX_ATTEMPTS = 3


@dataclass
class Answers:
    """Checks answers against their questions and against `provenances`, the teachers that the run began with."""

    asker: Asker
    session: Session
    provenances: Mapping[str, Provenance]
    ledger: Ledger

    def settle(self, marking: Marking) -> None:
        """Count a step that has all its answers. One that is cut off is asked about again, and counted then."""
        for teacher, usage in marking.charges:
            self.ledger.charge(teacher, usage)
        self.ledger.dropped_rollouts += sum(why == "dead_lettered" for why in marking.left_out.values())

    async def ask(self, marking: Marking, questions: Sequence[Question]) -> None:
        """Put the questions to the queue; that one was given up before is an answer too.

        What a step may go on without is not put, and holds nothing up.
        """
        for question in filter(self.asker.leaves_out, questions):
            marking.admit(question, is_inside=True)
        questions = [question for question in questions if not self.asker.leaves_out(question)]
        results = await self.asker.put(questions)
        for question, result in zip(questions, results, strict=True):
            marking.admit(question, is_inside=result is not Put.FULL)
            if result == Put.DEAD:
                await self.take(marking, Answer(question.job.id, None, "it was given up before"))

    async def ask_outside(self, marking: Marking) -> None:
        """Put again what found no room: one question of each teacher, and its others where that one finds some."""
        for first, *others in by_teacher(marking.outside.values()).values():
            await self.ask(marking, [first])
            if first.job.id not in marking.outside:
                await self.ask(marking, others)

    async def take(self, marking: Marking, answer: Answer) -> None:
        """Let the answer take effect, unless the step does not wait for it (any more).

        Raises:
            TeacherFailed: the teacher changed, does not answer with scores, or gave up where it must not.
        """
        question = marking.find(answer.job_id)
        if question is None:
            return
        self.asker.presence.hear(question.asked)
        if answer.payload is None:
            await self._give_up(marking, question, answer.reason or "no reason given")
            return
        try:
            said, usage = self._said(question, answer.payload)
        except BadScores as error:
            await self._refuse(marking, question, error)
            return
        marking.charges.append((question.asked, usage))
        marking.end(question, said)

    def _said(self, question: Question, payload: bytes) -> tuple[TokenScores | tuple[Reward, ...], Usage]:
        """Raises BadScores where the payload is no answer to the question."""
        provenance = self.provenances[question.asked]
        if isinstance(question.request, RewardRequest):
            rewarded = decode_reward_reply(payload)
            return rewards_checked(question.request, rewarded, provenance), rewarded.usage
        scored = decode_reply(payload)
        return checked(question.request, scored, provenance), scored.usage

    async def _refuse(self, marking: Marking, question: Question, error: BadScores) -> None:
        teacher = question.asked
        await self.session.event("teacher", f"a reply of {teacher!r} was refused: {error}", "warning")
        if not marking.holds(question):  # abandoned in the meantime
            return
        if isinstance(error, TeacherChanged):
            raise TeacherFailed("teacher_changed", f"teacher {teacher!r} is not the one it was: {error}") from error
        if question.attempt >= MAX_ATTEMPTS:
            raise TeacherFailed("bad_scores", f"teacher {teacher!r} does not answer with scores: {error}") from error
        again = self.asker.again(question)
        marking.replace(question, by=again)
        await self.ask(marking, [again])

    async def _give_up(self, marking: Marking, question: Question, reason: str) -> None:
        names = [rollout.id for rollout in question.rollouts]
        message = f"rollout {', '.join(names)} is left out: {reason}"
        if question.teacher.on_loss == "fail" or self.asker.spec.deterministic:
            raise TeacherFailed("question_failed", message)
        log.warning("a rollout is left out", extra={"rollout_id": names[0], "reason": reason})
        marking.given_up = reason
        marking.leave_out(question, "dead_lettered")
        await self.session.event("teacher", message, "warning", rollout=names[0])
