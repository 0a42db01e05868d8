"""Runs, for their owners: submit, follow, steer, and fetch the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator import buckets, events, forking, naming, reports, rollouts, runs
from tutelage.coordinator.archive import tar_of
from tutelage.coordinator.callers import CallerOf
from tutelage.coordinator.db import Database
from tutelage.coordinator.pushed import push
from tutelage.coordinator.routes.params import LIMIT, After, Limit
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.stream import Streams
from tutelage.serving import EVENT_STREAM, ServiceProblem, again, answers, in_bytes, in_events
from tutelage_client.errors import InvalidInput
from tutelage_client.history import noted
from tutelage_client.wire import (
    MOST_BUCKETS,
    CheckpointView,
    EventView,
    ForkRequest,
    MetricSeries,
    Page,
    PushedRollouts,
    PushResult,
    RolloutSample,
    RolloutView,
    RunChanges,
    RunStatus,
    RunView,
)

TAR = "application/x-tar"
LINES = "application/x-ndjson"
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]
IfMatch = Annotated[str | None, Header(min_length=1, max_length=255)]
LastEventId = Annotated[str | None, Header()]
Resolution = Annotated[int | None, Query(ge=1, le=MOST_BUCKETS, description="the most buckets; without it, rows")]
Names = Annotated[
    Sequence[str], Query(max_length=100, description="with a resolution: these alone; repeat it for several")
]


def router(database: Database, settings: Settings) -> APIRouter:
    api = APIRouter(prefix="/v1/runs", tags=["runs"], responses=answers("database_unavailable"))
    _add_verbs(api, database)
    _add_fork(api, database, settings)
    _add_events(api, database)
    _add_history(api, database)
    _add_bytes(api, database, settings)
    return api


def _add_verbs(api: APIRouter, database: Database) -> None:
    refusals = answers("unknown_teacher", "unknown_file", "capability_missing", "idempotency_key_reused")

    @api.post("", status_code=201, responses=refusals | again(RunView))
    def submit(
        spec: dict[str, Any], response: Response, caller: CallerOf, idempotency_key: IdempotencyKey = None
    ) -> RunView:
        """Queue a run. With an Idempotency-Key, the same key and body return the same run (200 instead of 201)."""
        with database.write() as session:
            run, is_new = runs.submit(session, spec, idempotency_key, caller.project)
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
        """One run: status, progress, newest metrics, and the resolved spec. Its ETag is of what PATCH changes."""
        with database.read() as session:
            run = runs.view(runs.find(session, run_id))
        response.headers["ETag"] = naming.etag(run)
        return run

    @api.patch("/{run_id}", responses=answers("run_not_found", "run_changed"))
    def change(run_id: str, changes: RunChanges, response: Response, if_match: IfMatch = None) -> RunView:
        """Change name, labels or note; with If-Match only as long as nobody else did."""
        with database.write() as session:
            run = naming.change(session, run_id, changes, if_match)
        response.headers["ETag"] = naming.etag(run)
        return run

    @api.post("/{run_id}/cancel", responses=answers("run_not_found", "run_is_final"))
    def cancel(run_id: str) -> RunView:
        """End the run without a result; its checkpoints stay."""
        with database.write() as session:
            return runs.cancel(session, run_id)

    @api.post("/{run_id}/pause", responses=answers("run_not_found", "run_is_final", "run_is_cancelling"))
    def pause(run_id: str) -> RunView:
        """Stop the run after a checkpoint, until it is resumed."""
        with database.write() as session:
            return runs.pause(session, run_id)

    @api.post("/{run_id}/resume", responses=answers("run_not_found", "run_is_final", "run_is_cancelling"))
    def resume(run_id: str) -> RunView:
        """Queue a paused run again."""
        with database.write() as session:
            return runs.resume(session, run_id)


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
    )

    @api.post("/{run_id}/fork", status_code=201, responses=refusals | again(RunView))
    def fork(
        run_id: str,
        response: Response,
        caller: CallerOf,
        request: ForkRequest | None = None,
        idempotency_key: IdempotencyKey = None,
    ) -> RunView:
        """Queue a run that begins at a committed checkpoint of this one, with settings changed."""
        with database.write() as session:
            asked = request or ForkRequest()
            run, is_new = forking.fork(session, settings, run_id, asked, idempotency_key, caller.project)
        response.status_code = 201 if is_new else 200
        return run


def _add_events(api: APIRouter, database: Database) -> None:
    either = in_events() | answers("run_not_found")
    streams = Streams(database)

    @api.get("/{run_id}/events", response_model=Page[EventView], responses=either)
    async def list_events(
        request: Request, run_id: str, after: After = None, limit: Limit = 200, last_event_id: LastEventId = None
    ) -> Any:
        """A page of events, or with `Accept: text/event-stream` all of them as they happen, from Last-Event-ID on."""
        if EVENT_STREAM not in request.headers.get("accept", ""):
            return await run_in_threadpool(event_page, run_id, after, limit)
        await run_in_threadpool(get_status, run_id)  # refuse an unknown run before the stream begins
        frames = streams.follow(run_id, _event_number(last_event_id or after), request.app.state.stopping)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(frames, headers=headers, media_type=EVENT_STREAM)

    def event_page(run_id: str, after: str | None, limit: int) -> Page[EventView]:
        with database.read() as session:
            runs.find(session, run_id)
            return events.events(session, run_id, after, limit)

    def get_status(run_id: str) -> RunStatus:
        with database.read() as session:
            return runs.find(session, run_id).status


def _add_history(api: APIRouter, database: Database) -> None:
    @api.get("/{run_id}/metrics", responses=answers("run_not_found"))
    def list_metrics(
        run_id: str,
        after: After = None,
        limit: Annotated[int | None, LIMIT] = None,
        resolution: Resolution = None,
        metric: Names = (),
    ) -> Page[reports.MetricsOfStep] | MetricSeries:
        """One row a step: `step`, `epoch`, `student_tokens`, `teacher_tokens` and what the trainer measured.

        With `resolution` the whole run in at most so many buckets of steps: the least, mean and largest value of each.
        """
        if resolution is None and metric:
            raise InvalidInput("metric: rows have all metrics; give a resolution too for columns of some", "metric")
        if resolution is not None and (after is not None or limit is not None):
            raise InvalidInput("resolution: it gives the whole run at once; leave after and limit out", "resolution")
        with database.read() as session:
            runs.find(session, run_id)
            if resolution is not None:
                return buckets.series(session, run_id, resolution, metric)
            return reports.metrics(session, run_id, after, limit or reports.LONGEST_METRICS)

    @api.get("/{run_id}/checkpoints", responses=answers("run_not_found"))
    def list_checkpoints(run_id: str, after: After = None, limit: Limit = 50) -> Page[CheckpointView]:
        """Committed checkpoints, by step."""
        with database.read() as session:
            runs.find(session, run_id)
            return reports.checkpoints(session, run_id, after, limit)

    @api.get("/{run_id}/rollouts", responses=answers("run_not_found"))
    def list_rollouts(run_id: str, after: After = None, limit: Limit = 50) -> Page[RolloutSample]:
        """Rollouts that the trainer chose to show, by step."""
        with database.read() as session:
            runs.find(session, run_id)
            return rollouts.samples(session, run_id, after, limit)

    @api.get("/{run_id}/rollouts/{rollout_id:path}", responses=answers("run_not_found", "rollout_not_found"))
    def get_rollout(run_id: str, rollout_id: str) -> RolloutView:
        """One of them, with what student and teacher held of each token and what that added to the loss."""
        with database.read() as session:
            runs.find(session, run_id)
            return rollouts.sample(session, run_id, rollout_id)


def _add_bytes(api: APIRouter, database: Database, settings: Settings) -> None:
    @api.post("/{run_id}/rollouts", responses=answers("run_not_found", "not_pushed", "run_is_final"))
    def push_rollouts(run_id: str, body: PushedRollouts) -> PushResult:
        """Hand over rollouts written elsewhere; an id that was seen before is ignored."""
        with database.write() as session:
            return push(session, run_id, body.rollouts)

    gone = in_bytes(TAR) | answers("run_not_found", "model_missing", "model_not_ready")

    @api.get("/{run_id}/model", response_class=StreamingResponse, responses=gone)
    def get_model(run_id: str) -> StreamingResponse:
        """The final model's directory as a tar stream."""
        with database.read() as session:
            run = runs.find(session, run_id)
            path, status = run.model_path, run.status
        if path is None or status is not RunStatus.SUCCEEDED:
            raise ServiceProblem(409, "model_not_ready", f"{run_id} is {status}; its model is there once it succeeded")
        if not Path(path).is_dir():
            raise ServiceProblem(404, "model_missing", f"{path} of {run_id} is not on the coordinator's disk any more")
        headers = {"Content-Disposition": f'attachment; filename="{run_id}.tar"'}
        return StreamingResponse(tar_of(Path(path)), headers=headers, media_type=TAR)

    @api.get(
        "/{run_id}/learned", response_class=StreamingResponse, responses=in_bytes(LINES) | answers("run_not_found")
    )
    def get_learned(run_id: str) -> StreamingResponse:
        """What each optimizer step of each attempt learned from, one JSON object a line: `tutelage runs check`."""
        with database.read() as session:
            runs.find(session, run_id)
        return StreamingResponse(noted(settings.artefacts(run_id) / "learned"), media_type=LINES)


def _event_number(given: str | None) -> int:
    if given is None:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise InvalidInput(f"Last-Event-ID: {given!r} is not the number of an event", "Last-Event-ID")
    return int(given)
