"""What the trainers wrote that the coordinator launched."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator import runs
from tutelage.coordinator.access import Guarded
from tutelage.coordinator.db import Database
from tutelage.coordinator.launchers import Launch, Launcher, LaunchFailed
from tutelage.serving import ServiceProblem, answers, in_bytes

TEXT = "text/plain"
Epoch = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="the attempt; the newest launched one by default")]
Lines = Annotated[int, Query(ge=1, le=100_000, description="the last lines; of several nodes, of each")]


def router(database: Database, launcher: Launcher | None) -> APIRouter:
    api = APIRouter(route_class=Guarded, prefix="/v1/runs", tags=["runs"], responses=answers("database_unavailable"))
    refusals = answers("run_not_found", "log_not_found", "no_launcher", "launcher_unavailable", "database_unavailable")

    @api.get("/{run_id}/logs", response_class=PlainTextResponse, responses=in_bytes(TEXT) | refusals)
    async def get_logs(run_id: str, epoch: Epoch = None, lines: Lines = 1000) -> PlainTextResponse:
        """The end of what a launched trainer wrote."""
        newest = await run_in_threadpool(newest_epoch, run_id)
        if launcher is None:
            detail = "this coordinator launches no trainers; one that was started otherwise keeps its log where it runs"
            raise ServiceProblem(409, "no_launcher", detail)
        for attempt in (epoch,) if epoch is not None else (newest + 1, newest):
            if (text := await _read(launcher, Launch(run_id, attempt), lines)) is not None:
                return PlainTextResponse(text)
        which = f"attempt {epoch}" if epoch is not None else "the newest attempt"
        raise ServiceProblem(404, "log_not_found", f"{run_id}: there is no log of {which}; not launched, or gone")

    def newest_epoch(run_id: str) -> int:
        with database.read() as session:
            return runs.find(session, run_id).epoch

    return api


async def _read(launcher: Launcher, launch: Launch, lines: int) -> str | None:
    try:
        return await launcher.logs(launch, lines)
    except LaunchFailed as error:
        raise ServiceProblem(503, "launcher_unavailable", str(error), retry_after_s=1) from error
