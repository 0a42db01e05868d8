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

from tutelage.coordinator.db import Database, now
from tutelage.coordinator.tables import PushedRow, RolloutRow, RunRow
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


async def forget_forever(database: Database, days: float) -> None:
    """Every hour whatever is due, of all projects. Several coordinators may do so at once."""
    while True:
        try:
            while (gone := await run_in_threadpool(_forget, database, days)).any:
                log.info("rollouts of ended runs are forgotten", extra=gone.model_dump())
        except SQLAlchemyError as error:
            log.warning("nothing is forgotten until the database answers", extra={"error": type(error).__name__})
        await asyncio.sleep(HOUR_S)


def _forget(database: Database, days: float) -> Forgotten:
    with database.write() as session:
        return forget(session, days)
