"""A service without keys turns away what a web page can send: another name for this machine, another site's request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from tutelage.coordinator.app import build_app as build_coordinator
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings as CoordinatorSettings
from tutelage.engines.fake import FakeEngine
from tutelage.engines.options import FakeOptions
from tutelage.serving import create_app
from tutelage.teacher.build import build_app as build_teacher
from tutelage.teacher.settings import Settings as TeacherSettings

OWN = ["localhost", "LOCALHOST:8400", "127.0.0.1", "127.8.8.8:1", "[::1]", "[::1]:8400"]
FOREIGN = [
    *("evil.example", "evil.example:8400", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.0"),
    *("[::2]:8400", "[::1", "::1", "2130706433", "0x7f.1", "me@127.0.0.1", "127.0.0.1:8400:8400", "127.0.0.1/", ""),
]
PAGES = [
    {"Origin": "http://evil.example"},
    {"Origin": "http://127.0.0.1:3000"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://127.0.0.1:8400", "Sec-Fetch-Site": "cross-site"},
]
OWN_PAGES = [
    {},
    {"Origin": "http://127.0.0.1:8400"},
    {"Origin": "https://127.0.0.1:8400", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
]


def counting(*, own_machine: bool) -> FastAPI:
    app = create_app("test", own_machine=own_machine)
    app.state.changes = 0

    @app.api_route("/thing", methods=["GET", "POST", "DELETE"])
    async def change() -> int:
        app.state.changes += 1
        return app.state.changes

    return app


async def asked(app: FastAPI, method: str, path: str, **headers: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8400") as http:
        return await http.request(method, path, headers=headers)


def is_refused(answer: httpx2.Response) -> bool:
    if answer.status_code != 403:
        return False
    told = answer.json()
    assert told["code"] == "foreign_request"
    assert "asks for no key" in told["detail"]
    return True


@pytest.mark.parametrize("host", OWN)
async def test_it_is_called_by_its_own_names(host: str) -> None:
    assert (await asked(counting(own_machine=True), "POST", "/thing", Host=host)).text == "1"


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize(("method", "path"), [("GET", "/thing"), ("POST", "/thing"), ("GET", "/metrics")])
async def test_it_is_called_by_no_other_name(host: str, method: str, path: str) -> None:
    app = counting(own_machine=True)
    answer = await asked(app, method, path, Host=host)
    assert is_refused(answer)
    assert repr(host) in answer.json()["detail"]
    assert app.state.changes == 0


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("page", PAGES)
async def test_a_page_of_another_site_changes_nothing(page: dict[str, str], method: str) -> None:
    app = counting(own_machine=True)
    assert is_refused(await asked(app, method, "/thing", **page))
    assert app.state.changes == 0


@pytest.mark.parametrize("page", OWN_PAGES)
async def test_its_own_pages_and_programs_do(page: dict[str, str]) -> None:
    assert (await asked(counting(own_machine=True), "POST", "/thing", **page)).status_code == 200


async def test_a_link_of_another_site_leads_to_it() -> None:
    assert (await asked(counting(own_machine=True), "GET", "/thing", **PAGES[3])).status_code == 200


async def test_where_keys_are_asked_for_any_name_will_do() -> None:
    app = counting(own_machine=False)
    assert (await asked(app, "POST", "/thing", Host="tutelage.example", Origin="https://other.example")).text == "1"


@pytest.mark.parametrize("guarded", [False, True])
async def test_a_coordinator_turns_pages_away_where_it_asks_for_no_key(guarded: bool, tmp_path: Path) -> None:
    (tmp_path / "admin").write_text("0" * 64)
    keys: dict[str, Any] = {"require_keys": True, "admin_key_file": tmp_path / "admin"} if guarded else {}
    settings = CoordinatorSettings(data_dir=tmp_path, **keys)
    database = Database(settings.database)
    app = build_coordinator(settings, database)
    answers = [
        await asked(app, "GET", "/", Host="evil.example"),
        await asked(app, "POST", "/v1/runs", Origin="http://evil.example"),
    ]
    database.close()
    assert [is_refused(answer) for answer in answers] == [not guarded] * 2


@pytest.mark.parametrize(
    ("host", "guarded", "refused"), [("127.0.0.1", False, True), ("127.0.0.1", True, False), ("0.0.0.0", False, False)]
)
async def test_a_teacher_turns_pages_away_on_loopback_without_keys(
    host: str, guarded: bool, refused: bool, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("0" * 64)
    keys = {"keys_file": tmp_path / "keys"} if guarded else {}
    settings = TeacherSettings.model_validate({"engine": "fake", "host": host, **keys})
    engine = FakeEngine(FakeOptions(), "toy")
    app = build_teacher(settings, engine)
    answer = await asked(app, "GET", "/healthz", Host="evil.example")
    await engine.close()
    assert is_refused(answer) is refused
