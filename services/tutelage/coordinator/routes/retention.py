"""What a project no longer keeps."""

from __future__ import annotations

from fastapi import APIRouter

from tutelage.coordinator import working_files
from tutelage.coordinator.access import Guarded
from tutelage.coordinator.audit import DeedOf
from tutelage.coordinator.callers import require
from tutelage.coordinator.db import Database
from tutelage.coordinator.retention import ended, forget, with_entries
from tutelage.coordinator.settings import Settings
from tutelage.serving import answers
from tutelage_client.wire import ForgetRequest, Forgotten, Scope


def router(database: Database, settings: Settings) -> APIRouter:
    api = APIRouter(route_class=Guarded, prefix="/v1", tags=["runs"], responses=answers("database_unavailable"))

    @api.post("/gc")
    def forget_rollouts(body: ForgetRequest, deed: DeedOf) -> Forgotten:
        """Delete texts that runs of the project showed, or were pushed, which ended so long ago; until none is left.

        With `files` what their trainers worked with too. With `audit_days`, for which a key needs projects:admin, the
        entries of the audit that are older.
        """
        runs = ended(body.days, deed.by.project)
        with database.write() as session:
            gone = forget(session, runs)
            if body.audit_days is not None:
                require(deed.by, Scope.PROJECTS_ADMIN)
                gone = with_entries(session, gone, body.audit_days)
            if gone.any or body.files:
                deed.tell(session, deed.by.project)
        return gone.model_copy(update={"runs": working_files.delete(database, settings, runs)}) if body.files else gone

    return api
