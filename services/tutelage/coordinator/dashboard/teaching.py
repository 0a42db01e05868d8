"""Teachers as their page shows them: with the mean of their replicas beside the worst, and what runs cost them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator import teachers
from tutelage.coordinator.tables import RunRow
from tutelage_client.wire import ReplicaView, RunSpending, TeacherView

TEACHERS_A_PAGE = 50
RUNS_SHOWN = 20


class Spread(NamedTuple):
    """How replicas answer: the mean of their 95th percentiles in seconds, and who is the slowest."""

    mean_s: float
    worst: ReplicaView


class Cost(NamedTuple):
    """What a run cost. name: of the run, None where the project has none of this id"""

    run: RunSpending
    name: str | None


class Card(NamedTuple):
    """A teacher. replicas: where more than one has answered; runs: that asked last, the newest first"""

    teacher: TeacherView
    replicas: Spread | None
    runs: list[Cost]


def cards(session: Session, project: str, after: str | None) -> tuple[list[Card], str | None]:
    """A page of teachers, and the cursor of the next one.

    Raises:
        InvalidInput: not a cursor of this list.
    """
    found = teachers.teachers(session, project, after, TEACHERS_A_PAGE)
    asked = {teacher.name: _runs(teacher) for teacher in found.data}
    ids = {run.run_id for runs in asked.values() for run in runs}
    named = select(RunRow.id, RunRow.name).where(RunRow.project == project, RunRow.id.in_(ids))
    names = {row.id: row.name for row in session.execute(named)}
    shown = [
        Card(each, _spread(each.info.replicas), [Cost(run, names.get(run.run_id)) for run in asked[each.name]])
        for each in found.data
    ]
    return shown, found.next


def _spread(replicas: Sequence[ReplicaView]) -> Spread | None:
    known = [(each.p95_s, each) for each in replicas if each.p95_s is not None]
    if len(known) < 2:
        return None
    slowest_s = max(seconds for seconds, _ in known)
    worst = next(each for seconds, each in known if seconds == slowest_s)
    return Spread(sum(seconds for seconds, _ in known) / len(known), worst)


def _runs(teacher: TeacherView) -> list[RunSpending]:
    activity = teacher.info.activity
    return [] if activity is None else list(activity.runs[::-1][:RUNS_SHOWN])
