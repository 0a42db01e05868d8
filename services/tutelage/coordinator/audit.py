"""The audit: who did what. A row is written in the transaction of what it tells of, so neither is without the other.

Rows are added and read, and taken away by age alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import ColumnElement, delete, insert, or_, select
from sqlalchemy.orm import Session

from tutelage.coordinator.access import ACTIONS
from tutelage.coordinator.callers import Caller, CallerOf
from tutelage.coordinator.db import now
from tutelage.coordinator.pages import page
from tutelage.coordinator.tables import AuditRow, Base
from tutelage_client.tracing import CONTEXT
from tutelage_client.wire import Action, AuditEntry, Page, Scope

_NEW = insert(Base.metadata.tables[AuditRow.__tablename__]).values(created_at=now())


@dataclass(frozen=True, slots=True)
class Deed:
    """What a request does. route: its method and template; status: of the answer once it is done"""

    by: Caller
    action: Action
    route: str
    status: int

    def tell(self, session: Session, target: str) -> None:
        """In the transaction of what is done. target: the id of what it is done to, or that it makes"""
        enter(session, self.by, self.action, self.route, target, self.status)


def enter(session: Session, by: Caller | None, action: Action, route: str, target: str | None, status: int) -> None:
    """Add a row. by: None where nobody knows who asked"""
    who = {"actor": "nobody", "owner": None, "project": None}
    if by is not None:
        who = {"actor": by.name, "owner": by.owner, "project": by.project}
    what = {"action": action, "route": route, "target": target, "status": status}
    session.execute(_NEW, who | what | {"trace": CONTEXT.get().trace_id})


async def deed_of(request: Request, caller: CallerOf) -> Deed:  # async, or FastAPI asks a thread
    """What this request does, by the table of actions."""
    route = request.scope["route"]
    name = f"{request.method} {route.path}"
    action = ACTIONS[name]
    assert action is not None, f"the table of actions has {name} as one that is not told of"
    return Deed(caller, action, name, route.status_code or 200)


DeedOf = Annotated[Deed, Depends(deed_of)]


def entries(
    session: Session, caller: Caller, wanted: Mapping[str, Any], after: str | None, limit: int
) -> Page[AuditEntry]:
    """What the caller may see of it, the newest first. wanted: by the keys of `_MATCHES`; None is any"""
    query = select(AuditRow).where(*(_MATCHES[name](value) for name, value in wanted.items() if value is not None))
    if Scope.PROJECTS_ADMIN not in caller.scopes:
        query = query.where(AuditRow.project == caller.project)
    return page(session, query, (AuditRow.id,), _view, after=after, limit=limit, newest_first=True)


def _about(target: str) -> ColumnElement[bool]:
    """Itself, or a part of it: what was done to a run's dead letters was done to the run."""
    return or_(AuditRow.target == target, AuditRow.target.startswith(f"{target}/", autoescape=True))


_MATCHES = {
    "actor": lambda value: or_(AuditRow.actor == value, AuditRow.owner == value),
    "action": lambda value: AuditRow.action == value,
    "target": _about,
    "since": lambda value: AuditRow.created_at >= value.timestamp(),
    "until": lambda value: AuditRow.created_at < value.timestamp(),
}


def forget(session: Session, older_than_s: float, at_once: int) -> int:
    """Take away entries that are older by the database's clock, at most so many; returns how many."""
    old = select(AuditRow.id).where(AuditRow.created_at < now() - older_than_s).limit(at_once)
    return len(session.execute(delete(AuditRow).where(AuditRow.id.in_(old)).returning(AuditRow.id)).all())


def _view(row: AuditRow) -> AuditEntry:
    return AuditEntry.model_validate({name: getattr(row, name) for name in AuditEntry.model_fields})
