"""Whether a run waits for the limits of an upstream: its teachers say so when they register, here its owner is told."""

from __future__ import annotations

from sqlalchemy.orm import Session

from tutelage.coordinator.events import record
from tutelage.coordinator.tables import RunRow
from tutelage.coordinator.teachers import asked_by, named
from tutelage_client.wire import Overload

# What is over sooner is no news: hosted models refuse a call now and then.
TOLD_AFTER_S = 3.0


def within_limits(session: Session, run: RunRow) -> dict[str, bool]:
    """A condition for each teacher whose upstream takes no work for its limits, or did; a change is an event too.

    The run's row is locked by the caller.
    """
    conditions: dict[str, bool] = {}
    for teacher in named(session, asked_by(run), run.project):
        name = f"teacher_within_limits/{teacher.name}"
        overload = teacher.info.overload if teacher.available else None
        holds = overload is None or overload.lasting_s + overload.retry_after_s < TOLD_AFTER_S
        held = run.conditions.get(name)
        if held is None and holds:
            continue
        conditions[name] = holds
        if holds and not held:
            record(session, run, "teacher", f"the upstream of teacher {teacher.name!r} takes work again")
        elif not holds and held is not False:
            assert overload is not None
            record(session, run, "teacher", _sentence(teacher.name, overload), overload.model_dump(), "warning")
    return conditions


def _sentence(teacher: str, overload: Overload) -> str:
    asked = f"Retry-After {overload.retry_after_s:g} s" if overload.retry_after_s else "without Retry-After"
    since = f"{overload.lasting_s:.0f} s"
    return (
        f"the upstream of teacher {teacher!r} takes no work for {since}, {asked}: {overload.reason}; the run waits and "
        "goes on by itself"
    )
