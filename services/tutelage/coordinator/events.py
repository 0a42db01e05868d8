"""A run's history: every change of status and every report is an event with a number that counts up within the run."""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from tutelage.coordinator.accounts import settle
from tutelage.coordinator.db import now
from tutelage.coordinator.pages import page
from tutelage.coordinator.states import LEASED, TRANSITIONS
from tutelage.coordinator.tables import Base, EventRow, RunRow
from tutelage_client.wire import EventView, Page, RunStatus

log = logging.getLogger(__name__)
LONGEST = 1000
_NEW = insert(Base.metadata.tables[EventRow.__tablename__]).values(created_at=now())


def record(
    session: Session, run: RunRow, type_: str, message: str, data: dict[str, Any] | None = None, level: str = "info"
) -> None:
    """Add an event. The run's row is locked by the caller, so numbers become visible in their order."""
    run.last_event += 1
    run.updated_at = now()
    told = {"type": type_, "level": level, "message": message, "data": data or {}}
    session.execute(_NEW, {"run_id": run.id, "id": run.last_event} | told)
    session.flush()


def move(session: Session, run: RunRow, *path: RunStatus, reason: str | None = None) -> None:
    """Take the run through the statuses of `path`, each with its event."""
    for to in path:
        before = run.status
        assert to in TRANSITIONS[before], f"{before} -> {to} is not in the state machine"
        run.status, run.status_reason = to, reason
        if to not in LEASED:
            run.lease_owner = run.lease_expires_at = None
        if to.final:
            run.ended_at = now()
            settle(run)
        data = {"from": before, "to": to, "epoch": run.epoch, "reason": reason}
        log.info("a run moves", extra={"run_id": run.id} | data)
        record(session, run, "state", f"{before} -> {to}" + (f": {reason}" if reason else ""), data)


def events(session: Session, run_id: str, after: str | None, limit: int) -> Page[EventView]:
    """Events with a number above `after`, in order."""
    query = select(EventRow).where(EventRow.run_id == run_id)
    return page(session, query, (EventRow.id,), _view, after=after, limit=limit, longest=LONGEST)


def _view(row: EventRow) -> EventView:
    return EventView.model_validate({name: getattr(row, name) for name in EventView.model_fields})
