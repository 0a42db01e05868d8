"""What ended runs leave behind and nobody must keep: texts that they showed, those that were pushed to them, and what
their trainers worked with.

Their metrics, events and models stay. A little is deleted at a time, so that no writer waits for long.
"""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy import Select, delete, inspect, select, tuple_
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator import audit, working_files
from tutelage.coordinator.db import Database, now
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import PushedRow, RolloutRow, RunRow
from tutelage.coordinator.uploads import forget as forget_uploads
from tutelage_client.wire import Forgotten

log = logging.getLogger(__name__)
AT_ONCE = 500  # rows of a table
DAY_S, HOUR_S = 86_400.0, 3600.0


def ended(days: float, project: str | None = None) -> Select[str]:
    """The ids of runs that ended more than `days` ago, of one project or of all."""
    query = select(RunRow.id).where(RunRow.ended_at < now() - days * DAY_S)
    return query if project is None else query.where(RunRow.project == project)


def forget(session: Session, runs: Select[str]) -> Forgotten:
    """Delete rollouts of these runs: AT_ONCE of each kind."""
    return Forgotten(shown=_delete(session, RolloutRow, runs), pushed=_delete(session, PushedRow, runs))


def _delete(session: Session, table: type[RolloutRow | PushedRow], runs: Select[str]) -> int:
    keys = inspect(table).primary_key
    chosen = select(*keys).where(table.run_id.in_(runs)).limit(AT_ONCE)
    gone = session.execute(delete(table).where(tuple_(*keys).in_(chosen)).returning(table.run_id))
    return len(gone.all())


def with_entries(session: Session, gone: Forgotten, days: float) -> Forgotten:
    """The same, with AT_ONCE entries of the audit that are older, of all projects."""
    return gone.model_copy(update={"entries": audit.forget(session, days * DAY_S, AT_ONCE)})


async def forget_forever(database: Database, settings: Settings) -> None:
    """Every hour whatever is due, of all projects. Several coordinators may do so at once."""
    while True:
        try:
            if uploads := await run_in_threadpool(forget_uploads, settings.files):
                log.info("uploads that nobody went on with are forgotten", extra={"uploads": uploads})
            while (gone := await run_in_threadpool(_forget, database, settings)).any:
                log.info("what is no longer kept is forgotten", extra=gone.model_dump())
        except (SQLAlchemyError, OSError) as error:
            log.warning("nothing is forgotten until database and disk answer", extra={"error": type(error).__name__})
        await asyncio.sleep(HOUR_S)


def _forget(database: Database, settings: Settings) -> Forgotten:
    """What the settings say; None is kept."""
    gone, days = Forgotten(shown=0, pushed=0), settings.keep_rollouts_days
    if days is not None or settings.keep_audit_days is not None:
        with database.write() as session:
            gone = gone if days is None else forget(session, ended(days))
            gone = gone if settings.keep_audit_days is None else with_entries(session, gone, settings.keep_audit_days)
    if settings.keep_files_days is None:
        return gone
    return gone.model_copy(update={"runs": working_files.delete(database, settings, ended(settings.keep_files_days))})
