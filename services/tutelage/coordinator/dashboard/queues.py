"""The queue as a page: what waits for each teacher, and what was given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator.tables import RunRow, TeacherRow
from tutelage.coordinator.teachers import asked_by
from tutelage.queue import DeadLetter, Depth, Queue
from tutelage_client.wire import RunStatus

LETTERS_SHOWN = 50  # of a teacher


@dataclass(frozen=True)
class Line:
    """The queue of one teacher. letters: its oldest dead letters, at most LETTERS_SHOWN of `depth.dead`"""

    teacher: str
    depth: Depth
    letters: list[DeadLetter]


def teachers(session: Session) -> list[str]:
    """Those that are registered, and those that runs ask which have not ended."""
    going_on = select(RunRow).where(RunRow.status.not_in([status for status in RunStatus if status.final]))
    asked = {name for run in session.scalars(going_on) for name in asked_by(run)}
    return sorted(asked | set(session.scalars(select(TeacherRow.name))))


async def lines(queue: Queue, names: Sequence[str]) -> list[Line]:
    """Raises ServiceUnreachable: the queue does not answer."""
    return [Line(name, await queue.depth(name), (await queue.dead_letters(name))[:LETTERS_SHOWN]) for name in names]
