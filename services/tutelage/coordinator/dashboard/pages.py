"""The dashboard's routes: pages made from templates, and the files that they use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from tutelage.coordinator import rollouts, runs
from tutelage.coordinator.access import Guarded
from tutelage.coordinator.callers import CallerOf, Gate, Refused
from tutelage.coordinator.dashboard import compare, queues, samples, teaching, views
from tutelage.coordinator.dashboard.auditing import add_audit
from tutelage.coordinator.dashboard.charts import CHARTS, WAITS
from tutelage.coordinator.dashboard.likely import add_likely
from tutelage.coordinator.dashboard.rendering import HEADERS, HERE, Show, no_such, renderer
from tutelage.coordinator.dashboard.signing import add_sign_in
from tutelage.coordinator.db import Database
from tutelage.coordinator.letters import answering
from tutelage.coordinator.refusals import Refusals
from tutelage.coordinator.routes.params import After
from tutelage.queue import Queue
from tutelage.serving import ServiceProblem
from tutelage_client.errors import InvalidInput

ROLLOUTS_A_PAGE = 50


class Assets(StaticFiles):
    """Files that a browser asks for again each time, so that an upgrade shows at once; unchanged ones are a 304."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update({"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"})
        return response


def assets() -> Assets:
    return Assets(directory=HERE / "static")


def router(database: Database, queue: Queue | None, gate: Gate, refusals: Refusals) -> APIRouter:
    api = APIRouter(route_class=Guarded, include_in_schema=False, default_response_class=HTMLResponse)
    show = renderer(gate)

    @api.get("/")
    def runs_page(caller: CallerOf, after: After = None) -> HTMLResponse:
        with database.read() as session:
            try:
                found = views.run_list(session, caller.project, after)
            except InvalidInput as error:
                return no_such(show, "page of runs", error)
            lines = views.run_lines(session, found.data)
            return show("runs.html", here="runs", lines=lines, next=found.next, after=after)

    @api.get("/runs/{run_id}")
    def run_page(run_id: str) -> HTMLResponse:
        with database.read() as session:
            try:
                page = views.run_page(session, run_id)
            except ServiceProblem as error:
                return no_such(show, "run", error)
            return show("run.html", here="runs", page=page, charts=CHARTS, waits=WAITS)

    @api.get("/teachers")
    def teachers_page(caller: CallerOf, after: After = None) -> HTMLResponse:
        with database.read() as session:
            try:
                cards, following = teaching.cards(session, caller.project, after)
            except InvalidInput as error:
                return no_such(show, "page of teachers", error)
            return show("teachers.html", here="teachers", cards=cards, next=following, after=after)

    _add_rollouts(api, database, show)
    add_likely(api, database, HEADERS)
    _add_comparison(api, database, show)
    _add_queue(api, database, queue, show)
    add_audit(api, database, show)
    add_sign_in(api, gate, refusals, show)
    return api


def on_missing(gate: Gate) -> Callable[[Refused], Response]:
    """Makes the answer to a page of a run that is not there for the caller."""
    show = renderer(gate)

    def missing(error: Refused) -> Response:
        return no_such(show, "run", error)

    return missing


def _add_rollouts(api: APIRouter, database: Database, show: Show) -> None:
    @api.get("/runs/{run_id}/rollouts")
    def rollouts_page(run_id: str, after: After = None) -> HTMLResponse:
        with database.read() as session:
            try:
                run = runs.view(runs.find(session, run_id))
                found = rollouts.samples(session, run_id, after, ROLLOUTS_A_PAGE, newest_first=True)
            except ServiceProblem as error:
                return no_such(show, "run", error)
            except InvalidInput as error:
                return no_such(show, "page of rollouts", error)
            return show("rollouts.html", here="runs", run=run, samples=found.data, next=found.next, after=after)

    @api.get("/runs/{run_id}/rollouts/{rollout_id:path}")
    def rollout_page(run_id: str, rollout_id: str, beside: Annotated[str | None, Query()] = None) -> HTMLResponse:
        with database.read() as session:
            try:
                run = runs.view(runs.find(session, run_id))
                shown = [rollouts.sample(session, run_id, name) for name in (rollout_id, beside) if name is not None]
            except ServiceProblem as error:
                return no_such(show, "run" if error.code == "run_not_found" else "rollout", error)
            others = rollouts.others(session, run_id, shown[0].rollout)
        sides = [samples.side(each, run_id) for each in shown]
        scales = {"gap": samples.GAPS, "surprise": samples.SURPRISE}
        shown_as = {"scales": scales, "block_size": samples.BLOCK}
        return show("rollout.html", here="runs", run=run, sides=sides, others=others, **shown_as)


def _add_comparison(api: APIRouter, database: Database, show: Show) -> None:
    @api.get("/runs/{run_id}/compare")
    def choose_page(run_id: str, caller: CallerOf, after: After = None) -> HTMLResponse:
        with database.read() as session:
            try:
                run, found = runs.view(runs.find(session, run_id)), views.run_list(session, caller.project, after)
            except ServiceProblem as error:
                return no_such(show, "run", error)
            except InvalidInput as error:
                return no_such(show, "page of runs", error)
            return show("choose.html", here="runs", run=run, found=found.data, next=found.next, after=after)

    @api.get("/runs/{run_id}/compare/{other_id}")
    def compare_page(run_id: str, other_id: str) -> HTMLResponse:
        with database.read() as session:
            try:
                page = compare.comparison(session, run_id, other_id)
            except ServiceProblem as error:
                return no_such(show, "run", error)
            return show("compare.html", here="runs", page=page)


def _add_queue(api: APIRouter, database: Database, queue: Queue | None, show: Show) -> None:
    @api.get("/queue")
    async def queue_page(caller: CallerOf) -> HTMLResponse:
        names = await run_in_threadpool(teachers, caller.project)
        try:
            with answering(queue) as asked:
                lines = await queues.lines(asked, names)
                lines = await run_in_threadpool(own, lines, caller.project)
        except ServiceProblem as error:
            return show("queue.html", here="queue", lines=[], trouble=error.detail)
        return show("queue.html", here="queue", lines=lines, trouble=None)

    def teachers(project: str) -> list[str]:
        with database.read() as session:
            return queues.teachers(session, project)

    def own(lines: list[queues.Line], project: str) -> list[queues.Line]:
        with database.read() as session:
            return queues.own(session, lines, project)
