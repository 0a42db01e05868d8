"""Starts trainers for queued runs that none has asked for, and looks after those that it started.

Every coordinator does so. They need not agree: an attempt is launched under a name that is taken once, and what one of
them sees of a launch the others see too. Where launches are forgotten after a while, the run's history still tells of
them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator import totals
from tutelage.coordinator.db import Database, now
from tutelage.coordinator.events import move, record
from tutelage.coordinator.launchers import TOLD, Launch, Launcher, LaunchFailed, LaunchStatus, how_it_ended
from tutelage.coordinator.leases import MAX_RESTARTS, finish
from tutelage.coordinator.runs import find
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.states import LEASED
from tutelage.coordinator.tables import EventRow, RunRow
from tutelage.serving import ServiceProblem
from tutelage_client.wire import PROJECT, ExitCode, Outcome, RunError, RunStatus

log = logging.getLogger(__name__)
POLL_S = 1.0
# Ends of a launch that never took its run which are nobody's failure: it was told to go.
TOLD_TO_GO = frozenset({ExitCode.DRAINED, 128 + signal.SIGTERM})
FORGOTTEN = LaunchStatus("ended", reason="nothing is left of it")


@dataclass(frozen=True)
class Work:
    """What the database says: runs that wait for a trainer, and those that a launched one holds.

    waiting: by the launch of their next attempt, the seconds for which they were queued, the oldest run first; of the
        one project whose runs the launched trainers may lease
    held: the launches whose trainers hold a lease
    """

    waiting: dict[Launch, float]
    held: list[Launch]


@dataclass
class Alive:
    """A launch that was seen alive. unwanted_at: since when nobody wants it, or it was told to go (was_told)"""

    unwanted_at: float | None = None
    was_told: bool = False


class Launching:
    """One coordinator's share of the work. `look` is one round; it may be called at any time, by any number of them."""

    def __init__(self, database: Database, settings: Settings, launcher: Launcher) -> None:
        self._database, self._settings, self._launcher = database, settings, launcher
        self._alive: dict[Launch, Alive] = {}

    async def forever(self, poll_s: float = POLL_S) -> None:
        while True:
            try:
                await self.look()
            except (LaunchFailed, SQLAlchemyError) as error:
                log.warning("trainers are not launched for now", extra={"reason": str(error)})
            except Exception:  # a bug: told in full, and no reason to launch nothing ever again
                log.exception("a round of launching failed")
            await asyncio.sleep(poll_s)

    async def look(self) -> None:
        """Launch what waits, tell the end of what died, stop what nobody wants.

        Raises:
            LaunchFailed: what launches does not answer.
        """
        work = await run_in_threadpool(_work, self._database)
        held = {launch: await self._seen(launch) for launch in work.held}
        waiting = {launch: await self._seen(launch) for launch in self._next(work)}
        for launch, status in held.items():
            if status.phase == "ended" and status.exit_code not in TOLD:
                await run_in_threadpool(_died, self._database, self._settings, launch, status)
        room = self._settings.launch_at_most - sum(each.lives for each in (*held.values(), *waiting.values()))
        for launch, status in waiting.items():
            if status.phase == "ended":
                await run_in_threadpool(_in_vain, self._database, launch, status)
            elif status.phase == "absent" and work.waiting[launch] >= self._settings.launch_after_s and room > 0:
                await self._launch(launch)
                room -= 1
        await self._stop_strays(work)

    def _next(self, work: Work) -> list[Launch]:
        """Those that wait and are launched already, or may be now: a long queue is not asked for from end to end."""
        most = 2 * self._settings.launch_at_most
        return [launch for place, launch in enumerate(work.waiting) if place < most or launch in self._alive]

    async def _seen(self, launch: Launch) -> LaunchStatus:
        status = await self._launcher.status(launch)
        if status.lives:
            self._alive.setdefault(launch, Alive())
        return status

    async def _launch(self, launch: Launch) -> None:
        """What the history tells of is launched no second time, though its place knows nothing of it any more."""
        if await run_in_threadpool(_was_launched, self._database, launch):
            if (await self._launcher.status(launch)).phase == "absent":  # now that it was surely launched before
                await run_in_threadpool(_in_vain, self._database, launch, FORGOTTEN)
        elif await self._launcher.launch(launch):
            self._alive[launch] = Alive()
            log.info("a trainer is launched", extra={"run_id": launch.run_id, "launch": launch.name})
            await run_in_threadpool(_launched, self._database, launch, self._launcher.kind)

    async def _stop_strays(self, work: Work) -> None:
        """What neither holds a run nor is waited for has a lease's time to end, one more after it was asked to."""
        for launch, alive in list(self._alive.items()):
            if launch in work.held or launch in work.waiting:
                alive.unwanted_at = None
                continue
            if not (await self._launcher.status(launch)).lives:
                del self._alive[launch]
                continue
            if alive.unwanted_at is None:
                alive.unwanted_at = time.monotonic()
            elif time.monotonic() - alive.unwanted_at > self._settings.lease_s:
                await self._launcher.signal(launch, signal.SIGKILL if alive.was_told else signal.SIGTERM)
                alive.unwanted_at, alive.was_told = time.monotonic(), True


def _work(database: Database) -> Work:
    queued = select(RunRow.id, RunRow.epoch, now() - RunRow.updated_at).where(
        RunRow.status == RunStatus.QUEUED, RunRow.project == PROJECT
    )
    leased = select(RunRow.id, RunRow.epoch, RunRow.lease_owner).where(RunRow.status.in_(LEASED))
    with database.read() as session:
        rows = session.execute(queued.order_by(RunRow.created_at, RunRow.id)).all()
        leases = session.execute(leased).all()
    waiting = {Launch(run_id, epoch + 1): waited_s for run_id, epoch, waited_s in rows}
    held = [Launch(run_id, epoch) for run_id, epoch, owner in leases if owner == Launch(run_id, epoch).name]
    return Work(waiting, held)


def _died(database: Database, settings: Settings, launch: Launch, status: LaunchStatus) -> None:
    """End the attempt of a trainer that cannot tell its end; one that was told meanwhile stands."""
    error = _ended("crashed", how_it_ended(status, launch), launch.epoch)
    with database.write() as session, suppress(ServiceProblem):
        finish(session, settings, launch.run_id, Outcome(epoch=launch.epoch, result="crashed", error=error))


def _launched(database: Database, launch: Launch, kind: str) -> None:
    with database.write() as session:
        run = find(session, launch.run_id, lock=True)
        if run.epoch < launch.epoch and not run.status.final:  # once it is taken the trainer speaks
            record(session, run, "log", f"a trainer is launched: {kind} {launch.name}", {"launch": launch.name})


def _was_launched(database: Database, launch: Launch) -> bool:
    told = select(EventRow.id).where(
        EventRow.run_id == launch.run_id,
        EventRow.type == "log",
        EventRow.data["launch"].as_string() == launch.name,
    )
    with database.read() as session:
        return session.scalar(told.limit(1)) is not None


def _in_vain(database: Database, launch: Launch, status: LaunchStatus) -> None:
    """Count an attempt that ended before it took its run, so that the next one has another name."""
    with database.write() as session:
        run = find(session, launch.run_id, lock=True)
        if run.status is RunStatus.QUEUED and run.epoch + 1 == launch.epoch:
            _count(session, run, launch, status)


def _count(session: Session, run: RunRow, launch: Launch, status: LaunchStatus) -> None:
    run.epoch = launch.epoch
    message = f"{how_it_ended(status, launch)} before it took the run; its log says why: tutelage runs logs {run.id}"
    if status.exit_code not in TOLD_TO_GO:
        totals.crashed(run)
    record(session, run, "log", message, {"launch": launch.name, "exit_code": status.exit_code}, "warning")
    if run.crashes > MAX_RESTARTS or status.exit_code == ExitCode.USER_ERROR:
        run.error = _ended("launch_failed", message, run.epoch).model_dump(mode="json")
        move(session, run, RunStatus.FAILED, reason="launch_failed")


def _ended(code: str, message: str, attempt: int) -> RunError:
    return RunError(code=code, message=message, category="infra", retryable=True, attempt=attempt)
