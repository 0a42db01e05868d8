"""What ended runs leave behind and nobody must keep: the texts that they showed, and those that were pushed to them.

Their metrics, events, checkpoints and models stay. A little is deleted at a time, so that no writer waits for long.
"""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy import Select, delete, inspect, select, tuple_
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator import audit
from tutelage.coordinator.db import Database, now
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import PushedRow, RolloutRow, RunRow
from tutelage.coordinator.uploads import forget as forget_uploads
from tutelage_client.wire import Forgotten

log = logging.getLogger(__name__)
AT_ONCE = 500  # rows of a table
DAY_S, HOUR_S = 86_400.0, 3600.0


def forget(session: Session, days: float, project: str | None = None) -> Forgotten:
    """Delete rollouts of runs that ended more than `days` ago, of one project or of all: AT_ONCE of each kind."""
    ended = select(RunRow.id).where(RunRow.ended_at < now() - days * DAY_S)
    if project is not None:
        ended = ended.where(RunRow.project == project)
    return Forgotten(shown=_delete(session, RolloutRow, ended), pushed=_delete(session, PushedRow, ended))


def _delete(session: Session, table: type[RolloutRow | PushedRow], ended: Select[str]) -> int:
    keys = inspect(table).primary_key
    chosen = select(*keys).where(table.run_id.in_(ended)).limit(AT_ONCE)
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
    shown_days, audit_days = settings.keep_rollouts_days, settings.keep_audit_days
    if shown_days is None and audit_days is None:
        return Forgotten(shown=0, pushed=0)
    with database.write() as session:
        gone = Forgotten(shown=0, pushed=0) if shown_days is None else forget(session, shown_days)
        return gone if audit_days is None else with_entries(session, gone, audit_days)
