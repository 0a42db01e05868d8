"""The audit, to be read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from tutelage.coordinator import audit
from tutelage.coordinator.access import Guarded
from tutelage.coordinator.callers import CallerOf
from tutelage.coordinator.db import Database
from tutelage.coordinator.routes.params import Actor, After, Limit, Target
from tutelage.serving import answers
from tutelage_client.wire import Action, AuditEntry, Page

Kind = Annotated[Action | None, Query(description="only these; `refused` is who was turned away")]
Since = Annotated[AwareDatetime | None, Query(description="only from then on")]
Until = Annotated[AwareDatetime | None, Query(description="only before then")]


def router(database: Database) -> APIRouter:
    api = APIRouter(route_class=Guarded, prefix="/v1/audit", tags=["audit"], responses=answers("database_unavailable"))

    @api.get("")
    def list_audit(
        caller: CallerOf,
        after: After = None,
        limit: Limit = 50,
        actor: Actor = None,
        action: Kind = None,
        target: Target = None,
        since: Since = None,
        until: Until = None,
    ) -> Page[AuditEntry]:
        """Who did what in the project, in every project with projects:admin, the newest first; and who was refused."""
        wanted = {"actor": actor, "action": action, "target": target, "since": since, "until": until}
        with database.read() as session:
            return audit.entries(session, caller, wanted, after, limit)

    return api
