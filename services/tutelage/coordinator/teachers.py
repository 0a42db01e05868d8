"""The registry of teachers: a run names one, never its address. A teacher that stops registering is unavailable."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator.db import now, put
from tutelage.coordinator.pages import page
from tutelage.coordinator.tables import RunRow, TeacherRow
from tutelage.serving import ServiceProblem
from tutelage_client.spec import TeacherRef, all_names
from tutelage_client.wire import Page, RunStatus, TeacherRegistration, TeacherView

FRESH_S = 20.0


def register(session: Session, teacher: TeacherRegistration) -> TeacherView:
    """Enter a teacher, or refresh what is known under its name."""
    info = teacher.info.model_dump(mode="json")
    put(session, TeacherRow, ("name",), name=teacher.name, url=teacher.url, info=info, seen_at=now())
    return named(session, [teacher.name])[0]


def named(session: Session, names: Sequence[str]) -> list[TeacherView]:
    """Those of the named teachers that are registered."""
    if not names:
        return []
    rows = session.scalars(select(TeacherRow).where(TeacherRow.name.in_(names))).all()
    view = _View(session)
    return [view(row) for row in rows]


def asked_by(run: RunRow) -> list[str]:
    """The names of all teachers that a run may ask."""
    return all_names(map(TeacherRef.model_validate, run.spec["teachers"]))


def remove(session: Session, name: str) -> None:
    """Take a teacher off the list; one that still runs is back with its next registration.

    Raises:
        ServiceProblem: 404 `teacher_not_found`; 409 `teacher_in_use` while a run that has not ended names it.
    """
    row = session.get(TeacherRow, name)
    if row is None:
        raise ServiceProblem(404, "teacher_not_found", f"there is no teacher {name!r}; GET /v1/teachers lists them")
    going_on = select(RunRow).where(RunRow.status.not_in([status for status in RunStatus if status.final]))
    for run in session.scalars(going_on):
        if name in asked_by(run):
            detail = f"{run.id}, which is {run.status}, asks teacher {name!r}; wait for its end or cancel it"
            raise ServiceProblem(409, "teacher_in_use", detail)
    session.delete(row)


def teachers(session: Session, after: str | None, limit: int) -> Page[TeacherView]:
    """All teachers, by name."""
    return page(session, select(TeacherRow), (TeacherRow.name,), _View(session), after=after, limit=limit)


class _View:
    """A row as people see it; available is judged by the database's clock, as it was written."""

    def __init__(self, session: Session) -> None:
        self._now = session.scalars(select(now())).one()

    def __call__(self, row: TeacherRow) -> TeacherView:
        seen = {name: getattr(row, name) for name in ("name", "url", "info", "seen_at")}
        return TeacherView.model_validate({**seen, "available": self._now - row.seen_at <= FRESH_S})
