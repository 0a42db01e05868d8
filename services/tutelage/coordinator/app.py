"""The coordinator's app: the database brought up to date, the routes, and the sweep of expired leases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import DataError, InterfaceError, OperationalError, SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator import keys
from tutelage.coordinator.access import serve_guarded
from tutelage.coordinator.callers import Gate, Refused
from tutelage.coordinator.clock import ClockWatch
from tutelage.coordinator.dashboard import pages
from tutelage.coordinator.db import Database
from tutelage.coordinator.exposition import Scraping
from tutelage.coordinator.launchers import Launcher
from tutelage.coordinator.launching import Launching
from tutelage.coordinator.leases import keep_all, sweep
from tutelage.coordinator.letters import Letters
from tutelage.coordinator.refusals import Refusals
from tutelage.coordinator.retention import forget_forever
from tutelage.coordinator.routes import audit, letters, logs, retention, runs, store, workers
from tutelage.coordinator.routes import keys as key_routes
from tutelage.coordinator.settings import Settings
from tutelage.queue import Queue
from tutelage.serving import create_app, problem
from tutelage.telemetry import CoordinatorMetrics
from tutelage_client.errors import InvalidInput

log = logging.getLogger(__name__)


def build_app(
    settings: Settings, database: Database, queue: Queue | None = None, launcher: Launcher | None = None
) -> FastAPI:
    """An app over a database whose schema is brought up to date first.

    queue: where dead letters are; launcher: what starts trainers for runs that none has asked for
    Raises:
        InvalidInput: a file with a key cannot be used, keys are asked for and there is none, or the schema is of a
            newer release.
    """
    schema = database.migrate()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        work = [_sweep_forever(database, settings.lease_s, metrics), forget_forever(database, settings)]
        if launcher is not None:
            work.append(Launching(database, settings, launcher).forever())
        tasks = [asyncio.create_task(each) for each in work]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if launcher is not None:
            await launcher.close()
        if queue is not None:
            await queue.close()
        database.close()

    def ready() -> str | None:
        return _why_not(database, schema)

    most = settings.max_file_bytes
    body_limits = {"/v1/files": most, "/v1/uploads": most}
    registry = CollectorRegistry()
    metrics = CoordinatorMetrics.of(registry)
    gate = _gate(database, settings)
    scraping = Scraping(database, settings, queue, gate, registry)
    app = create_app(
        "Tutelage coordinator",
        lifespan,
        ready=ready,
        registry=registry,
        exposition=scraping,
        body_limits=body_limits,
        own_machine=not gate.asks,
    )
    app.state.metrics = metrics
    for outage in (OperationalError, InterfaceError):
        app.add_exception_handler(outage, _on_outage)
    app.add_exception_handler(DataError, _on_impossible_value)
    refusals = Refusals(database, pages.on_missing(gate))
    serve_guarded(
        app,
        gate,
        runs.router(database, settings, metrics),
        logs.router(database, launcher),
        letters.router(Letters(database, queue)),
        store.router(database, settings),
        retention.router(database, settings),
        key_routes.router(database),
        audit.router(database),
        workers.router(database, settings),
        pages.router(database, queue, gate, refusals),
    )
    app.add_exception_handler(Refused, refusals.answer)
    app.mount("/static", pages.assets())
    return app


def _gate(database: Database, settings: Settings) -> Gate:
    known = keys.in_files(settings.key_files)
    if settings.asks_for_keys and not known:
        with database.read() as session:
            if not keys.any_is_there(session):
                raise InvalidInput(
                    f"at {settings.host} callers need a key and none is known; give --admin-key-file a file with one, "
                    "as `openssl rand -hex 32` makes, or listen on 127.0.0.1 without --require-keys",
                    "admin_key_file",
                )
    return Gate(database, known, asks=settings.asks_for_keys)


def _why_not(database: Database, schema: str) -> str | None:
    """schema: the revision that this release reads and writes; a backup or another release may bring another one"""
    try:
        found = database.revision()
    except SQLAlchemyError:
        return "the database does not answer"
    if found == schema:
        return None
    return f"the database has the schema {found}, but this release works with {schema}; start it again, which migrates"


async def _on_outage(_: Request, error: Exception) -> JSONResponse:
    """Clients repeat what met a 503, so a restart of the database passes unnoticed."""
    log.warning("the database does not answer", extra={"error": type(error).__name__})
    detail = "the database does not answer; try again in a moment"
    return problem(503, "database_unavailable", detail, headers={"Retry-After": "1"})


async def _on_impossible_value(_: Request, __: Exception) -> JSONResponse:
    detail = (
        "a value of the request cannot be stored, which one the database does not say: leave out NUL characters and "
        "numbers beyond 64 bits"
    )
    return problem(422, "invalid_input", detail)


async def _sweep_forever(database: Database, lease_s: float, metrics: CoordinatorMetrics) -> None:
    """Every coordinator sweeps: what one takes back, the others find taken."""
    watch = ClockWatch(tolerance_s=lease_s / 2)
    while True:
        try:
            metrics.leases_lost.inc(await run_in_threadpool(_sweep, database, lease_s, watch))
        except SQLAlchemyError as error:
            log.warning("leases are not swept until the database answers", extra={"error": type(error).__name__})
        await asyncio.sleep(lease_s / 8)


def _sweep(database: Database, lease_s: float, watch: ClockWatch) -> int:
    if watch.moved(database):
        log.warning("the database's clock was moved; every lease is kept for its full length")
        keep_all(database, lease_s)
    return sweep(database)
