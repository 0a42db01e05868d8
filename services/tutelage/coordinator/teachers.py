"""The registry of teachers: a run names one, never its address. A teacher that stops registering is unavailable."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator.db import now, put
from tutelage.coordinator.pages import page
from tutelage.coordinator.tables import TeacherRow
from tutelage_client.wire import Page, TeacherRegistration, TeacherView

FRESH_S = 20.0


def register(session: Session, teacher: TeacherRegistration) -> TeacherView:
    """Enter a teacher, or refresh what is known under its name."""
    info = teacher.info.model_dump(mode="json")
    put(session, TeacherRow, ("name",), name=teacher.name, url=teacher.url, info=info, seen_at=now())
    return named(session, [teacher.name])[0]


def named(session: Session, names: Sequence[str]) -> list[TeacherView]:
    """Those of the named teachers that are registered."""
    rows = session.scalars(select(TeacherRow).where(TeacherRow.name.in_(names))).all()
    view = _View(session)
    return [view(row) for row in rows]


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
