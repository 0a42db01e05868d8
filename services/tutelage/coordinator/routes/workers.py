"""For workers only: leases, and the writes that carry the epoch of one and are made with its token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import monotonic
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator import leases, reports, runs
from tutelage.coordinator.access import Guarded
from tutelage.coordinator.audit import Deed, DeedOf
from tutelage.coordinator.db import Database
from tutelage.coordinator.pushed import pushed
from tutelage.coordinator.routes.params import Limit
from tutelage.coordinator.settings import Settings
from tutelage.serving import ServiceProblem, answers
from tutelage_client.wire import (
    CheckpointCommit,
    EventReport,
    Heartbeat,
    HeartbeatReply,
    Lease,
    LeaseRequest,
    Outcome,
    Page,
    Rollout,
    StepReport,
)

POLL_S = 0.25
OWNED = answers("run_not_found", "stale_epoch")
Cursor = Annotated[int, Query(ge=0, lt=2**63)]


class Fenced(Guarded):
    """A write that is refused because another attempt has the run is counted."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def counted(request: Request) -> Response:
            try:
                return await answer(request)
            except ServiceProblem as error:
                if error.code == "stale_epoch" and request.method != "GET":
                    request.app.state.metrics.fenced_writes.labels(self.path.rpartition("/")[2]).inc()
                raise

        return counted


def router(database: Database, settings: Settings) -> APIRouter:
    api = APIRouter(
        route_class=Fenced, prefix="/internal/v1", tags=["workers"], responses=answers("database_unavailable")
    )
    _add_leases(api, database, settings)
    _add_reports(api, database)
    return api


def _add_leases(api: APIRouter, database: Database, settings: Settings) -> None:
    @api.post("/leases", response_model=Lease, responses={204: {"description": "no run is queued"}})
    async def lease(request: Request, body: LeaseRequest, deed: DeedOf) -> Lease | Response:
        """The oldest queued run of the project, waited for up to `wait_s`."""
        ends_at = monotonic() + body.wait_s
        while True:
            found = await run_in_threadpool(_claim, database, settings, body.worker, deed)
            if found is not None:
                return found
            if not await _may_wait(request, ends_at):
                return Response(status_code=204)

    @api.post("/runs/{run_id}/lease", responses=answers("run_not_found", "run_not_queued", "stale_epoch"))
    def lease_run(run_id: str, body: LeaseRequest, deed: DeedOf) -> Lease:
        """Claim this queued run, or with `epoch` take over the lease that was granted with it."""
        with database.write() as session:
            deed.tell(session, run_id)
            if body.epoch is None:
                return leases.claim_run(session, settings, run_id, body.worker)
            return leases.adopt(session, settings, run_id, body.worker, body.epoch)

    @api.post("/runs/{run_id}/heartbeat", responses=OWNED)
    def heartbeat(run_id: str, body: Heartbeat) -> HeartbeatReply:
        """Keep the lease, say what is being done, and learn what the run's owner wants."""
        with database.write() as session:
            return leases.heartbeat(session, settings, run_id, body)

    @api.post("/runs/{run_id}/outcome", status_code=204, responses=OWNED)
    def outcome(run_id: str, body: Outcome, deed: DeedOf) -> None:
        """The end of this attempt; the lease is given back."""
        with database.write() as session:
            if leases.finish(session, settings, run_id, body):
                deed.tell(session, run_id)


def _claim(database: Database, settings: Settings, worker: str, deed: Deed) -> Lease | None:
    with database.read() as session:
        if not leases.is_work_waiting(session, deed.by.project):
            return None
    with database.write() as session:
        lease = leases.claim(session, settings, worker, deed.by.project)
        if lease is not None:
            deed.tell(session, lease.run_id)
        return lease


async def _may_wait(request: Request, ends_at: float) -> bool:
    """Wait a moment; False when the time is over, this process stops, or the caller has gone: it gets no run then."""
    stopping, left_s = request.app.state.stopping, ends_at - monotonic()
    if left_s <= 0 or stopping.is_set():
        return False
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), min(POLL_S, left_s))
    return not await request.is_disconnected()


def _add_reports(api: APIRouter, database: Database) -> None:
    @api.post("/runs/{run_id}/steps", status_code=204, responses=OWNED)
    def report_step(run_id: str, body: StepReport) -> None:
        """The metrics of a step, and a few of its rollouts."""
        with database.write() as session:
            reports.step(session, run_id, body)

    @api.post("/runs/{run_id}/events", status_code=204, responses=OWNED)
    def report_event(run_id: str, body: EventReport) -> None:
        """A line for the run's history."""
        with database.write() as session:
            reports.event(session, run_id, body)

    @api.post("/runs/{run_id}/checkpoints", status_code=204, responses=OWNED | answers("stale_epoch", "stale_step"))
    def commit_checkpoint(run_id: str, body: CheckpointCommit) -> None:
        """Make a checkpoint the one to resume from."""
        with database.write() as session:
            reports.commit(session, run_id, body)

    @api.get("/runs/{run_id}/pushed", responses=answers("run_not_found"))
    def list_pushed(run_id: str, after: Cursor = 0, limit: Limit = 256) -> Page[Rollout]:
        """Pushed rollouts behind the cursor `after`; `next` is the cursor for what comes later."""
        with database.read() as session:
            runs.find(session, run_id)
            return pushed(session, run_id, after, limit)
