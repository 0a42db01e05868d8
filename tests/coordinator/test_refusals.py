"""Who was turned away: told of as far as it is known, and in a bounded number."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from guarded import FILES, URL, as_key
from sqlalchemy import func, select
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tutelage.coordinator.app import build_app
from tutelage.coordinator.callers import ANYONE, Caller, Refused
from tutelage.coordinator.db import Database
from tutelage.coordinator.refusals import HOUR_S, MOST_AN_HOUR, Refusals
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import AuditRow
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import KeyRequest, Scope


@pytest.fixture
def guarded(guarded_settings: Settings, database: Database) -> FastAPI:
    """Behind keys, and new, so that nobody was refused yet."""
    return build_app(guarded_settings, database)


@pytest.fixture
async def admin(guarded: FastAPI) -> AsyncIterator[CoordinatorClient]:
    async with CoordinatorClient(URL, FILES["admin"], httpx2.ASGITransport(guarded)) as client:
        yield client


async def test_who_was_refused_is_told_of_as_far_as_it_is_known(
    guarded: FastAPI, admin: CoordinatorClient, spec: Callable[..., Any]
) -> None:
    run = await admin.submit(spec())
    reader = await admin.create_key(KeyRequest(name="r", project="other", scopes=frozenset({Scope.RUNS_READ})))
    lost = await admin.create_key(KeyRequest(name="lost", scopes=frozenset({Scope.RUNS_READ})))
    await admin.revoke_key(lost.key.id)
    async with (
        as_key(guarded, None) as nobody,
        as_key(guarded, "tk_wrong") as stranger,
        as_key(guarded, reader.secret) as other,
        as_key(guarded, lost.secret) as former,
    ):
        assert (await nobody.get("/v1/runs")).status_code == 401
        assert (await stranger.post("/v1/keys")).status_code == 401
        assert (await stranger.post("/sign-in", data={"key": "tk_wrong"})).status_code == 401
        assert (await former.get(f"/v1/runs/{run.id}")).status_code == 401
        assert (await other.post(f"/v1/runs/{run.id}/cancel")).status_code == 403
        assert (await other.get(f"/runs/{run.id}")).status_code == 404
        assert (await nobody.get("/v1/runs/a%00b%E2%80%AEc" + "d" * 500)).status_code == 401
    told = [
        (each.actor, each.owner, each.project, each.route, each.target, each.status)
        for each in (await admin.audit(action="refused")).data
    ]
    page, key = "GET /runs/{run_id}", reader.key.id
    assert told == [
        ("nobody", None, None, "GET /v1/runs/{run_id}", "abc" + "d" * 195, 401),
        (key, "r", "other", page, run.id, 404),
        (key, "r", "other", "POST /v1/runs/{run_id}/cancel", run.id, 403),
        (lost.key.id, "lost", "default", "GET /v1/runs/{run_id}", run.id, 401),
        ("nobody", None, None, "POST /sign-in", None, 401),
        ("nobody", None, None, "POST /v1/keys", None, 401),
        ("nobody", None, None, "GET /v1/runs", None, 401),
    ]


async def test_a_flood_without_a_key_leaves_a_bounded_number_of_rows_and_hides_no_key(database: Database) -> None:
    now_s = 0.0
    refusals = Refusals(database, lambda _: Response(), clock=lambda: now_s)
    request = Request({"type": "http", "method": "GET", "path_params": {}, "route": Route("/v1/runs", Response)})

    async def refuse(by: Caller | None, times: int) -> None:
        for _ in range(times):
            await refusals.tell(request, Refused(401, "unauthorized", "no", by=by))

    await refuse(None, 2 * MOST_AN_HOUR)
    await refuse(ANYONE, 1)
    await refuse(Caller("key-1", "other", frozenset()), MOST_AN_HOUR + 1)
    assert _counted(database) == {"nobody": MOST_AN_HOUR, "key-1": MOST_AN_HOUR}
    now_s = HOUR_S
    await refuse(None, MOST_AN_HOUR + 1)
    assert _counted(database) == {"nobody": 2 * MOST_AN_HOUR, "key-1": MOST_AN_HOUR}


def _counted(database: Database) -> dict[str, int]:
    query = select(AuditRow.actor, func.count()).group_by(AuditRow.actor)
    with database.read() as session:
        return {actor: count for actor, count in session.execute(query)}  # noqa: C416 - of rows, which are no pairs to a type checker
