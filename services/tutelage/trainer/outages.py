"""What a teacher's silence means: a condition, and once it is lost what `on_loss` of the spec says.

A teacher that owes answers and gives none is away after a while, and lost after its `patience_s`, whatever the reason:
it died, froze, its upstream is away, or it has too much to do. A question that is given up is an answer here, so a job
that kills its teachers makes none of them lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tutelage.queue.base import Put
from tutelage.trainer.answers import Answers
from tutelage.trainer.exits import TeacherOutage
from tutelage.trainer.marking import Marking, Question
from tutelage_client.spec import TeacherRef, all_names


class Outages:
    """Looks after the steps under way each time the answers were read.

    away_s: how long to hear nothing of a teacher before its questions are put again and it counts as away
    """

    def __init__(self, answers: Answers, away_s: float) -> None:
        self.answers = answers
        self.asker = answers.asker
        self.presence = answers.asker.presence
        self.away_s = away_s
        self._any_left = False  # questions in queues whose answers nobody waits for
        self._refs = answers.asker.spec.teachers
        stand_ins = {ref.failover_to: ref.patience_s for ref in self._refs if ref.failover_to is not None}
        self._patience_s = stand_ins | {ref.name: ref.patience_s for ref in self._refs}

    @property
    def shortest_s(self) -> float:
        """No look may come later than this after the one before."""
        return min([self.away_s, *self._patience_s.values()])

    async def look(self, steps: Sequence[Marking]) -> None:
        """Act on who is lost and who is back, put questions again, and tell the run's conditions.

        Raises:
            TeacherOutage: a teacher is lost whose `on_loss` is "fail", or a budget for outages is spent.
        """
        self.presence.owe({question.asked for step in steps for question in step.outstanding})
        await self._welcome(steps)
        for step in steps:
            await self.answers.ask_outside(step)
        for step in steps:
            for question in step.outstanding:
                await self._lose(question)
        for step in steps:
            await self._move(step)
            self._skip(step)
        for teacher in list(self.presence.asked_s):
            await self._ask_again(teacher, steps)
        self._tell()
        self._spend()

    def leave(self) -> None:
        """Questions were given up that may be in queues; they are taken back at the end."""
        self._any_left = True

    async def give_up(self, *, is_waiting: bool) -> None:
        """The run asks nothing more. is_waiting: questions of steps under way are in queues"""
        self.presence.lost.clear()
        if is_waiting or self._any_left:
            await self.asker.cancel()
        self._any_left = False

    async def _welcome(self, steps: Sequence[Marking]) -> None:
        """Those who are back are asked what was not put to them meanwhile."""
        while self.presence.back:
            teacher, silence_s = self.presence.back.popitem()
            message = f"teacher {teacher!r} answers again after {silence_s:.0f} s"
            await self._event(teacher, silence_s, message, "info")
            await self._put(teacher, steps)

    async def _lose(self, question: Question) -> None:
        """Count the one who owes this answer as lost, if it is time."""
        teacher, silence_s = question.asked, self.presence.silence_s(question.asked)
        if teacher in self.presence.lost or silence_s < self._patience_s[teacher]:
            return
        self.presence.lose(teacher, question)
        message = f"teacher {teacher!r} has not answered for {silence_s:.0f} s"
        own = next((ref for ref in self._refs if ref.name == teacher), None)
        if own is not None and own.on_loss == "fail":
            self._tell()
            raise TeacherOutage(f'{message}, and on_loss = "fail" ends the run then; start it and submit the run again')
        await self._event(teacher, silence_s, f"{message}; {self._done_about(own)}", "warning")

    def _done_about(self, lost: TeacherRef | None) -> str:
        """lost: None for one that only stands in."""
        if lost is None or (lost.failover_to is not None and lost.failover_to in self.presence.lost):
            return "whoever is back first is asked, until then the run waits"
        if lost.failover_to is None:
            left_out = "its lines are left out of steps that have others, until it answers"
            return left_out if lost.on_loss == "skip" else "the run waits for it"
        own, other = (self.answers.provenances[name] for name in (lost.name, lost.failover_to))
        is_same = own.model_revision == other.model_revision
        who = "which has the same weights" if is_same else f"which is another model, {other.model}"
        return f"{lost.failover_to!r}, {who}, is asked in its place until it answers"

    async def _move(self, step: Marking) -> None:
        """Ask another one what a lost teacher was asked, where one may stand in; its late answers change nothing."""
        moved = [(question, by) for question in step.outstanding if (by := self.asker.moved(question)) is not None]
        for question, by in moved:
            step.replace(question, by)
            self._any_left = True
        await self.answers.ask(step, [by for _, by in moved])

    def _skip(self, step: Marking) -> None:
        """Once only those are missing that may be left out. A step that would have nothing else waits for them."""
        missing = step.outstanding
        if missing and step.whole and all(map(self.asker.leaves_out, missing)) and step.has_marks:
            for question in missing:
                step.leave_out(question, "skipped")
            self._any_left = True

    async def _ask_again(self, teacher: str, steps: Sequence[Marking]) -> None:
        """That costs nothing while the queue is well, and rebuilds the work after it lost its memory."""
        if self.presence.now_s - self.presence.asked_s[teacher] <= self.away_s:
            return
        self.presence.asked_s[teacher] = self.presence.now_s
        await self._put(teacher, steps)
        stays = self.presence.lost.get(teacher)
        if stays is not None and await self.asker.put([stays]) == [Put.DEAD]:
            self.presence.hear(teacher)  # it was there to give it up

    async def _put(self, teacher: str, steps: Sequence[Marking]) -> None:
        for step in steps:
            own = [question for question in step.outstanding if question.asked == teacher]
            await self.answers.ask(step, [question for question in own if question.job.id not in step.outside])

    def _tell(self) -> None:
        """The run's condition, and that of each teacher where there are several."""
        lost, names = self.presence.lost, all_names(self._refs)
        here = {name: name not in lost and self.presence.silence_s(name) < self.away_s for name in names}
        conditions = self.answers.session.conditions
        conditions["teacher_available"] = all(here.values())
        if len(names) > 1:
            conditions |= {f"teacher_available/{name}": is_here for name, is_here in here.items()}

    def _spend(self) -> None:
        """A budget counts the time in which nobody who may be asked about a teacher's lines says anything."""
        for ref in self._refs:
            silences = [self.presence.silence_s(name) for name in (ref.name, ref.failover_to) if name is not None]
            if ref.outage_budget_s is not None and min(silences) >= ref.outage_budget_s:
                sentence = f"nobody answered about lines of teacher {ref.name!r} for {min(silences):.0f} s"
                raise TeacherOutage(f"{sentence}, and its outage_budget_s is {ref.outage_budget_s:g}")

    async def _event(self, teacher: str, silence_s: float, message: str, level: Literal["info", "warning"]) -> None:
        await self.answers.session.event("teacher", message, level, teacher=teacher, silence_s=round(silence_s, 1))
