"""A database that goes away and comes back, and requests that no database can hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cut_off import cut_off
from sqlalchemy import text

from tutelage.coordinator.app import build_app
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings
from tutelage_client.errors import InvalidInput

Spec = Callable[..., dict[str, Any]]


async def test_an_outage_of_the_database_is_told_and_survived(empty_url: Callable[[], str], tmp_path: Path, spec: Spec):
    database = Database(empty_url())
    app = build_app(Settings(data_dir=tmp_path), database)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1") as http:
        run = (await http.post("/v1/runs", json=spec())).json()
        with cut_off(database, empty_url):
            for answer in (await http.get("/v1/runs"), await http.post("/v1/runs", json=spec())):
                assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
                assert answer.headers["retry-after"] == "1"
            assert (await http.get("/readyz")).status_code == 503
            assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.get("/v1/runs")).json()["data"] == [run]
    database.close()


@pytest.mark.parametrize("revision", ["0001", "9999"])
async def test_a_schema_of_another_release_ends_readiness_with_the_reason(
    empty_url: Callable[[], str], tmp_path: Path, revision: str
):
    """As a restored backup is, or what a newer coordinator has migrated."""
    database = Database(empty_url())
    app = build_app(Settings(data_dir=tmp_path), database)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1") as http:
        _become(database, revision)
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert f"has the schema {revision}, but this release works with 00" in answer.json()["detail"]
    database.close()


def test_a_schema_of_a_newer_release_is_refused_and_stays_as_it_is(empty_url: Callable[[], str]):
    database = Database(empty_url())
    newest = database.migrate()
    _become(database, "9999")
    with pytest.raises(InvalidInput, match=f"schema 9999 of a newer release, and this one knows none after {newest}"):
        database.migrate()
    assert database.revision() == "9999"
    database.close()


def _become(database: Database, revision: str) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


HOSTILE = [
    ("GET", "/v1/runs/x%00y"),
    ("GET", f"/v1/runs?after=1~{'9' * 40}%00"),
    ("GET", "/v1/runs?after=nan~x"),
    ("GET", "/v1/teachers?after=%00"),
    ("GET", f"/v1/runs?limit={'9' * 40}"),
    ("POST", "/v1/files?filename=a%00b"),
    ("POST", f"/v1/files?filename={'a' * 300}"),
    ("GET", f"/internal/v1/runs/r/pushed?after={'9' * 40}"),
    ("GET", "/v1/files/..%2f..%2fetc%2fpasswd/content"),
]


@pytest.mark.parametrize(("method", "path"), HOSTILE)
async def test_a_hostile_request_is_refused_or_harmless_and_never_a_fault(
    method: str, path: str, http: httpx2.AsyncClient
):
    assert (await http.request(method, path)).status_code in (200, 201, 404, 422)


@pytest.mark.parametrize("number", ["9" * 40, "-1", "²"])
async def test_numbers_that_are_no_event_are_refused(number: str, http: httpx2.AsyncClient, spec: Spec):
    run = (await http.post("/v1/runs", json=spec())).json()
    stream = [(b"Accept", b"text/event-stream"), (b"Last-Event-ID", number.encode("latin-1"))]
    answer = await http.get(f"/v1/runs/{run['id']}/events", headers=stream)
    assert answer.status_code == 422
    page = await http.get(f"/v1/runs/{run['id']}/events", params={"after": number})
    assert page.status_code == (200 if number == "-1" else 422)
