"""Answers to the same held-out lines at each evaluation, as student and teacher see them: two steps side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tutelage.core.objective import Objective
from tutelage.trainer.exits import TeacherFailed
from tutelage.trainer.inspecting import Shown, inspect
from tutelage.trainer.marking import Scored, silenced
from tutelage.trainer.run import Run
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Rollout

# A run does not stand still for what nothing is learned from.
WAIT_S = 30.0
UNLEARNED = Objective(kind="supervised")


async def looked_at(run: Run, answers: Sequence[Rollout], *, asks_teacher: bool) -> Shown:
    """What student and teacher hold of each token; without the teacher's part where it was not asked or did not say."""
    asked = [answer for answer in answers if asks_teacher and is_readable(run, answer)]
    marks = {each.rollout.id: each for each in await _marked(run, asked) if each.scores is not None}
    scored = [marks.get(answer.id, Scored(answer, None)) for answer in answers]
    units = [(silenced(each),) for each in scored]
    found = await asyncio.to_thread(inspect, run.student, run.spec, UNLEARNED, units, scored, 0)
    return Shown(answers, found)


def is_readable(run: Run, answer: Rollout) -> bool:
    """Whether somebody is asked about lines of its tag, and whoever may be can read all of it."""
    try:
        run.teachers.of(answer.tag)
    except InvalidInput:
        return False
    able = [teacher for teacher in run.teachers.everyone if run.teachers.may_ask(teacher, answer.tag)]
    return all(len(answer.prompt_ids) + len(answer.completion_ids) <= teacher.max_length for teacher in able)


async def _marked(run: Run, answers: Sequence[Rollout]) -> list[Scored]:
    """As far as they come in time. A teacher that fails here fails the next step too, and the run by that one."""
    if not answers or run.pipeline is None:
        return []
    try:
        async with asyncio.timeout(WAIT_S):
            return await run.session.while_wanted(run.pipeline.looked_at(answers))
    except TimeoutError:
        reason = f"no teacher answered within {WAIT_S:g} s"
    except TeacherFailed as error:
        reason = str(error)
    await run.session.event("teacher", f"the held-out answers of this evaluation have no marks: {reason}", "warning")
    return []
