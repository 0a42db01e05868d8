"""Runs, for their owners: submit, follow, steer, and fetch the result."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from tutelage.coordinator import forking, naming, runs, steering
from tutelage.coordinator.access import Guarded
from tutelage.coordinator.audit import DeedOf
from tutelage.coordinator.callers import CallerOf
from tutelage.coordinator.db import Database
from tutelage.coordinator.pushed import push
from tutelage.coordinator.revisions import etag
from tutelage.coordinator.routes.downloads import add_downloads
from tutelage.coordinator.routes.history import add_events, add_history
from tutelage.coordinator.routes.params import After, IdempotencyKey, Limit
from tutelage.coordinator.settings import Settings
from tutelage.serving import again, answers, problem
from tutelage.telemetry import CoordinatorMetrics
from tutelage_client.wire import (
    ForkRequest,
    Page,
    Places,
    PushedRollouts,
    PushResult,
    RunChanges,
    RunStatus,
    RunView,
)

IfMatch = Annotated[str | None, Header(min_length=1, max_length=255)]


def router(database: Database, settings: Settings, metrics: CoordinatorMetrics) -> APIRouter:
    api = APIRouter(route_class=Guarded, prefix="/v1/runs", tags=["runs"], responses=answers("database_unavailable"))
    _add_verbs(api, database, settings.places)
    _add_steering(api, database)
    _add_fork(api, database, settings)
    add_events(api, database, metrics)
    add_history(api, database)
    _add_pushing(api, database)
    add_downloads(api, database, settings)
    return api


def _add_verbs(api: APIRouter, database: Database, places: Places) -> None:
    """places: which paths specs may name"""
    refusals = answers(
        "unknown_teacher", "unknown_file", "capability_missing", "idempotency_key_reused", "budget_spent"
    )

    @api.post("", status_code=201, responses=refusals | again(RunView))
    def submit(
        spec: dict[str, Any], response: Response, deed: DeedOf, idempotency_key: IdempotencyKey = None
    ) -> RunView:
        """Queue a run. With an Idempotency-Key, the same key and body return the same run (200 instead of 201)."""
        with database.write() as session:
            whose = deed.by.project, deed.by.name
            run, is_new = runs.submit(session, spec, idempotency_key, *whose, places=places)
            if is_new:
                deed.tell(session, run.id)
        response.status_code = 201 if is_new else 200
        return run

    @api.get("")
    def list_runs(
        caller: CallerOf, after: After = None, limit: Limit = 50, status: RunStatus | None = None
    ) -> Page[RunView]:
        """Runs, the newest first."""
        with database.read() as session:
            return runs.runs(session, caller.project, status, after, limit)

    @api.get("/{run_id}", responses=answers("run_not_found"))
    def get_run(run_id: str, response: Response) -> RunView:
        """One run: status, progress, newest metrics, and the resolved spec. Its ETag is of what owners change."""
        with database.read() as session:
            run = runs.view(runs.find(session, run_id))
        response.headers["ETag"] = etag(run)
        return run

    @api.patch("/{run_id}", responses=answers("run_not_found", "run_changed"))
    def change(run_id: str, changes: RunChanges, response: Response, deed: DeedOf, if_match: IfMatch = None) -> RunView:
        """Change name, labels or note; with If-Match only as long as nobody else did."""
        with database.write() as session:
            run = naming.change(session, run_id, changes, if_match)
            deed.tell(session, run_id)
        response.headers["ETag"] = etag(run)
        return run


def _add_steering(api: APIRouter, database: Database) -> None:
    conflicts = "run_not_found", "run_is_final", "run_changed"

    @api.post("/{run_id}/cancel", responses=answers(*conflicts))
    def cancel(run_id: str, deed: DeedOf, if_match: IfMatch = None) -> RunView:
        """End the run without a result; its checkpoints stay."""
        with database.write() as session:
            deed.tell(session, run_id)
            return steering.cancel(session, run_id, if_match)

    @api.post("/{run_id}/pause", responses=answers(*conflicts, "run_is_cancelling"))
    def pause(run_id: str, deed: DeedOf, if_match: IfMatch = None) -> RunView:
        """Stop the run after a checkpoint, until it is resumed."""
        with database.write() as session:
            deed.tell(session, run_id)
            return steering.pause(session, run_id, if_match)

    @api.post("/{run_id}/resume", responses=answers(*conflicts, "run_is_cancelling"))
    def resume(run_id: str, deed: DeedOf, if_match: IfMatch = None) -> RunView:
        """Queue a paused run again."""
        with database.write() as session:
            deed.tell(session, run_id)
            return steering.resume(session, run_id, if_match)


def _add_fork(api: APIRouter, database: Database, settings: Settings) -> None:
    refusals = answers(
        "run_not_found",
        "checkpoint_not_found",
        "checkpoint_missing",
        "setting_is_fixed",
        "unknown_teacher",
        "unknown_file",
        "capability_missing",
        "idempotency_key_reused",
        "budget_spent",
    )

    @api.post("/{run_id}/fork", status_code=201, responses=refusals | again(RunView))
    def fork(
        run_id: str,
        response: Response,
        deed: DeedOf,
        request: ForkRequest | None = None,
        idempotency_key: IdempotencyKey = None,
    ) -> RunView:
        """Queue a run that begins at a committed checkpoint of this one, with settings changed."""
        with database.write() as session:
            asked, whose = request or ForkRequest(), (deed.by.project, deed.by.name)
            run, is_new = forking.fork(session, settings, run_id, asked, idempotency_key, *whose)
            if is_new:
                deed.tell(session, run.id)
        response.status_code = 201 if is_new else 200
        return run


def _add_pushing(api: APIRouter, database: Database) -> None:
    refusals = answers("run_not_found", "not_pushed", "run_is_final")

    @api.post("/{run_id}/rollouts", response_model=PushResult, responses=refusals)
    def push_rollouts(run_id: str, body: PushedRollouts, deed: DeedOf) -> Any:
        """Hand over rollouts written elsewhere, each judged by itself; an id that was seen before is ignored.

        The answer lists those that were refused; where all of them were, it is 422.
        """
        with database.write() as session:
            result = push(session, run_id, body.rollouts)
            if result.accepted:
                deed.tell(session, run_id)
        return _all_refused(result) if len(result.refused) == len(body.rollouts) else result


def _all_refused(result: PushResult) -> Response:
    """The problem of the first, with those of all."""
    first = result.refused[0]
    errors = [{"field": each.field, "message": each.detail} for each in result.refused]
    return problem(first.status, first.code, first.detail, field=first.field, errors=errors)
