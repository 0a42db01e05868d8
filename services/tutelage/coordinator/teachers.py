"""The registry of teachers: a run names one, never its address. A teacher that stops registering is unavailable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from tutelage.addresses import Allowed, NotAllowed, door, look_up
from tutelage.coordinator.db import now, put_new
from tutelage.coordinator.pages import page
from tutelage.coordinator.tables import RunRow, TeacherRow
from tutelage.serving import ServiceProblem
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import TeacherRef, all_names
from tutelage_client.wire import Page, RunStatus, TeacherRegistration, TeacherView, sampler_queue

FRESH_S = 20.0


def placed(teacher: TeacherRegistration, allowed: Allowed) -> TeacherRegistration:
    """What is told of a teacher, at an address where teachers may be; a host that is a name is looked up for this.

    Raises:
        InvalidInput: it is no address, or the teacher calls itself something else.
        ServiceProblem: 422 `address_not_allowed`.
    """
    if teacher.name != teacher.info.name:
        detail = f"the teacher calls itself {teacher.info.name!r}, not {teacher.name!r}; register it under its --name"
        raise InvalidInput(f"name: {detail}", "name")
    found = door(teacher.url)
    try:
        allowed.check(found, look_up(found))
    except NotAllowed as error:
        detail = f"url: {error}; give it the address there, or the teacher another --public-url"
        raise ServiceProblem(422, "address_not_allowed", detail, field="url") from error
    except OSError as error:
        detail = f"url: the name {found.host} is not known to the coordinator; give the teacher another --public-url"
        raise ServiceProblem(422, "address_not_allowed", detail, field="url") from error
    return teacher.model_copy(update={"url": found.url})


def register(session: Session, teacher: TeacherRegistration, project: str) -> tuple[TeacherView, bool]:
    """Enter a teacher, or refresh what is known under its name; says whether it is new, or at another address.

    Raises:
        ServiceProblem: 409 `teacher_name_taken`, by another project.
    """
    told = {"url": teacher.url, "info": teacher.info.model_dump(mode="json"), "seen_at": now()}
    before = session.scalar(select(TeacherRow.url).where(TeacherRow.name == teacher.name))
    if not put_new(session, TeacherRow, name=teacher.name, project=project, **told):
        own = (TeacherRow.name == teacher.name) & (TeacherRow.project == project)
        if session.scalar(update(TeacherRow).where(own).values(**told).returning(TeacherRow.name)) is None:
            detail = f"the name {teacher.name!r} is another project's; start this teacher under another one"
            raise ServiceProblem(409, "teacher_name_taken", detail, field="name")
    return named(session, [teacher.name], project)[0], before != teacher.url


def named(session: Session, names: Sequence[str], project: str) -> list[TeacherView]:
    """Those of the named teachers that the project has registered."""
    if not names:
        return []
    rows = session.scalars(select(TeacherRow).where(TeacherRow.name.in_(names), TeacherRow.project == project)).all()
    view = _View(session)
    return [view(row) for row in rows]


def asked_by(run: RunRow) -> list[str]:
    """The names of all teachers that a run may ask."""
    return _asked_in(run.spec)


def _asked_in(spec: dict[str, Any]) -> list[str]:
    return all_names(map(TeacherRef.model_validate, spec["teachers"]))


def queues_of(run: RunRow) -> list[str]:
    """Where a run has work done: by its teachers, and by its samplers, if it has any."""
    return queues_in(run.spec)


def queues_in(spec: dict[str, Any]) -> list[str]:
    """The same by a run's spec."""
    sampler = spec["rollout"].get("sampler")  # a run of an older release does not say
    return _asked_in(spec) + ([] if sampler is None else [sampler_queue(sampler)])


def remove(session: Session, name: str, project: str) -> None:
    """Take a teacher off the list; one that still runs is back with its next registration.

    Raises:
        ServiceProblem: 404 `teacher_not_found`; 409 `teacher_in_use` while a run that has not ended names it.
    """
    row = session.get(TeacherRow, name)
    if row is None or row.project != project:
        raise ServiceProblem(404, "teacher_not_found", f"there is no teacher {name!r}; GET /v1/teachers lists them")
    going_on = select(RunRow).where(
        RunRow.project == project, RunRow.status.not_in([status for status in RunStatus if status.final])
    )
    for run in session.scalars(going_on):
        if name in asked_by(run):
            detail = f"{run.id}, which is {run.status}, asks teacher {name!r}; wait for its end or cancel it"
            raise ServiceProblem(409, "teacher_in_use", detail)
    session.delete(row)


def teachers(session: Session, project: str, after: str | None, limit: int) -> Page[TeacherView]:
    """A project's teachers, by name."""
    query = select(TeacherRow).where(TeacherRow.project == project)
    return page(session, query, (TeacherRow.name,), _View(session), after=after, limit=limit)


class _View:
    """A row as people see it; available is judged by the database's clock, as it was written."""

    def __init__(self, session: Session) -> None:
        self._now = session.scalars(select(now())).one()

    def __call__(self, row: TeacherRow) -> TeacherView:
        seen = {name: getattr(row, name) for name in ("name", "url", "info", "seen_at")}
        return TeacherView.model_validate({**seen, "available": self._now - row.seen_at <= FRESH_S})
