"""What happened in a run: its events, as a list or as they come, its metrics, checkpoints and shown rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator import buckets, events, reports, rollouts, runs
from tutelage.coordinator.callers import CallerOf
from tutelage.coordinator.db import Database
from tutelage.coordinator.routes.params import LIMIT, After, Limit
from tutelage.coordinator.stream import Streams
from tutelage.serving import BY_ACCEPT, EVENT_STREAM, JSON, accepted, answers, in_events
from tutelage.telemetry import CoordinatorMetrics
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import (
    MOST_BUCKETS,
    EventView,
    ListedCheckpoint,
    MetricSeries,
    Page,
    RolloutSample,
    RolloutView,
)

LastEventId = Annotated[str | None, Header()]
Resolution = Annotated[int | None, Query(ge=1, le=MOST_BUCKETS, description="the most buckets; without it, rows")]
Names = Annotated[
    Sequence[str], Query(max_length=100, description="with a resolution: these alone; repeat it for several")
]


def add_events(api: APIRouter, database: Database, metrics: CoordinatorMetrics) -> None:
    either = in_events() | answers("run_not_found", "not_acceptable")
    streams = Streams(database, metrics)

    @api.get("/{run_id}/events", response_model=Page[EventView], responses=either)
    async def list_events(
        request: Request,
        response: Response,
        run_id: str,
        caller: CallerOf,
        after: After = None,
        limit: Limit = 200,
        last_event_id: LastEventId = None,
    ) -> Any:
        """A page of events, or with `Accept: text/event-stream` all of them as they happen, from Last-Event-ID on."""
        if accepted(request.headers.get("accept", ""), JSON, EVENT_STREAM, "events") == JSON:
            response.headers.update(BY_ACCEPT)
            return await run_in_threadpool(event_page, run_id, after, limit)
        newest = await run_in_threadpool(newest_event, run_id)  # refuse an unknown run before the stream begins
        given = ("Last-Event-ID", last_event_id) if last_event_id else ("after", after)
        number = _event_number(*given, newest)
        frames = streams.follow(run_id, number, request.app.state.stopping, caller.name)
        headers = BY_ACCEPT | {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(frames, headers=headers, media_type=EVENT_STREAM)

    def event_page(run_id: str, after: str | None, limit: int) -> Page[EventView]:
        with database.read() as session:
            runs.find(session, run_id)
            return events.events(session, run_id, after, limit)

    def newest_event(run_id: str) -> int:
        with database.read() as session:
            return runs.find(session, run_id).last_event


def add_history(api: APIRouter, database: Database) -> None:
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
    def list_checkpoints(run_id: str, after: After = None, limit: Limit = 50) -> Page[ListedCheckpoint]:
        """Committed checkpoints, by step. A run can begin at those whose files are kept."""
        with database.read() as session:
            runs.find(session, run_id)
            return reports.checkpoints(session, run_id, after, limit)

    @api.get("/{run_id}/rollouts", responses=answers("run_not_found"))
    def list_rollouts(run_id: str, after: After = None, limit: Limit = 50) -> Page[RolloutSample]:
        """Rollouts that the trainer chose to show, by step."""
        with database.read() as session:
            runs.find(session, run_id)
            return rollouts.samples(session, run_id, after, limit)

    absent = answers(
        "run_not_found", "rollout_not_found", "not_found"
    )  # no route takes a line break, nor has an id one

    @api.get("/{run_id}/rollouts/{rollout_id:path}", responses=absent)
    def get_rollout(run_id: str, rollout_id: str) -> RolloutView:
        """One of them, with what student and teacher held of each token and what that added to the loss."""
        with database.read() as session:
            runs.find(session, run_id)
            return rollouts.sample(session, run_id, rollout_id)


def _event_number(name: str, given: str | None, newest: int) -> int:
    """Of the event behind which a stream begins. name: what it was given as; newest: the last number that there is"""
    if given is None:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise InvalidInput(f"{name}: {given!r} is not the number of an event", name)
    if int(given) > newest:
        raise InvalidInput(
            f"{name}: {given} is beyond this run's newest event, which is {newest}; give the last one that you have, "
            "or none for all of them",
            name,
        )
    return int(given)
