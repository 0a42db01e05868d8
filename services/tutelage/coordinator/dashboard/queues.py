"""The queue as a page: what waits for each teacher, and what was given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator.tables import RunRow, TeacherRow
from tutelage.coordinator.teachers import queues_of
from tutelage.queue import DeadLetter, Depth, Queue
from tutelage_client.wire import RunStatus

LETTERS_SHOWN = 50  # of a teacher


@dataclass(frozen=True)
class Line:
    """The queue of one teacher. letters: its oldest dead letters, at most LETTERS_SHOWN of `depth.dead`"""

    teacher: str
    depth: Depth
    letters: list[DeadLetter]


def teachers(session: Session, project: str) -> list[str]:
    """A project's: those that are registered, and those that runs ask which have not ended, samplers included."""
    going_on = select(RunRow).where(
        RunRow.project == project, RunRow.status.not_in([status for status in RunStatus if status.final])
    )
    asked = {name for run in session.scalars(going_on) for name in queues_of(run)}
    owners = {row.name: row.project for row in session.scalars(select(TeacherRow))}
    return sorted({name for name in asked | set(owners) if owners.get(name, project) == project})


def own(session: Session, lines: Sequence[Line], project: str) -> list[Line]:
    """Without the letters of another project's runs, which a teacher of this name served before."""
    named = {letter.run_id for line in lines for letter in line.letters}
    known = set(session.scalars(select(RunRow.id).where(RunRow.id.in_(named), RunRow.project == project)))
    return [replace(line, letters=[each for each in line.letters if each.run_id in known]) for line in lines]


async def lines(queue: Queue, names: Sequence[str]) -> list[Line]:
    """Raises ServiceUnreachable: the queue does not answer."""
    return [Line(name, await queue.depth(name), (await queue.dead_letters(name))[:LETTERS_SHOWN]) for name in names]
