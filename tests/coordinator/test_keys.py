"""Keys: what one opens, what each route asks for, and that no project sees anything of another."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from guarded import FILES, URL, as_key, made
from sqlalchemy import inspect, select, update

from tutelage.coordinator.access import NEEDS, Access, Guarded, serve_guarded
from tutelage.coordinator.app import build_app
from tutelage.coordinator.callers import COOKIE, digest
from tutelage.coordinator.db import Database
from tutelage.coordinator.leases import finish
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import KeyRow
from tutelage.serving import is_loopback
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput, ProblemResponse, StaleEpoch
from tutelage_client.wire import (
    Action,
    Heartbeat,
    KeyRequest,
    Lease,
    Outcome,
    Rollout,
    RunStatus,
    Scope,
    StepReport,
    TeacherInfo,
)
from tutelage_client.worker import WorkerClient

NEW = ("POST /v1/runs", "POST /v1/files", "POST /v1/teachers", "POST /v1/keys", "POST /internal/v1/leases")
OWN = [name for name in NEEDS if name.endswith("/v1/uploads/{sha256}")]  # each project's, see test_uploads
GUARDED = [name for name, need in NEEDS.items() if need is not Access.PUBLIC]
SCOPED = {name: need for name, need in NEEDS.items() if isinstance(need, Scope)}


@pytest.fixture
def app(guarded_app: FastAPI, database: Database) -> FastAPI:
    guarded_app.state.stopping = asyncio.Event()
    return guarded_app


@pytest.fixture
async def admin(app: FastAPI) -> AsyncIterator[CoordinatorClient]:
    async with CoordinatorClient(URL, FILES["admin"], httpx2.ASGITransport(app)) as client:
        yield client


def path_of(route: str, **ids: str) -> tuple[str, str]:
    """Method and path of a route with its parameters put in."""
    method, path = route.split(" ")
    for name, value in {"rollout_id:path": "r", "job_id": "j", "other_id": ids["run_id"], **ids}.items():
        path = path.replace(f"{{{name}}}", value)
    return method, path


@pytest.mark.parametrize(
    ("path", "kind", "said"),
    [
        ("/v1/secrets", Guarded, "GET /v1/secrets is not in NEEDS of coordinator/access.py"),
        ("/v1/runs", APIRoute, "would be served to anybody"),
    ],
)
def test_a_route_that_asks_nothing_of_its_caller_is_not_served(path: str, kind: type[APIRoute], said: str):
    api = APIRouter(route_class=kind)
    api.add_api_route(path, lambda: None, methods=["GET"])
    with pytest.raises(LookupError, match=said):
        serve_guarded(FastAPI(), nobody_is_let_in, api)


async def nobody_is_let_in(_: Request) -> None:
    raise AssertionError


async def test_nothing_is_said_of_a_body_before_the_key_is_known(app: FastAPI):
    broken = {"content": b"{", "headers": {"Content-Type": "application/json"}}
    for path in ("/v1/runs", "/v1/keys", "/internal/v1/leases"):
        async with as_key(app, None) as nobody, as_key(app, FILES["admin"]) as admin:
            assert (await nobody.post(path, **broken)).status_code == 401
            assert "the body is not JSON" in (await admin.post(path, **broken)).json()["detail"]


async def test_no_route_but_the_public_ones_answers_without_a_key(app: FastAPI):
    ids = {"run_id": "run-1", "file_id": "file-1", "name": "walker", "key_id": "key-1"}
    async with as_key(app, None) as nobody, as_key(app, "tk_wrong") as stranger:
        for route in GUARDED:
            method, path = path_of(route, **ids)
            answer = await nobody.request(method, path)
            is_page = not path.startswith(("/v1", "/internal"))
            assert answer.status_code == (303 if is_page else 401), route
            if is_page:
                assert answer.headers["location"] == f"/sign-in?to={path}"
            elif NEEDS[route] is not Access.HOLDER:
                assert answer.headers["www-authenticate"] == "Bearer"
                assert (await stranger.request(method, path)).json()["code"] == "unauthorized", route
        served = {f"{verb.upper()} {path}" for path, verbs in app.openapi()["paths"].items() for verb in verbs}
        health = {"GET /healthz", "GET /readyz", "GET /metrics"}
        named = {name.replace(":path", "") for name in NEEDS}
        assert served - health == {name for name in named if name.split(" ")[1].startswith(("/v1", "/internal"))}


async def test_every_route_takes_its_scope_and_no_other(app: FastAPI, admin: CoordinatorClient):
    """Whatever the route then says of ids that are nobody's, it is no refusal of the key."""
    ids = {"run_id": "run-1", "file_id": "file-1", "name": "walker", "key_id": "key-1"}
    fitting = {scope: await made(admin, scope) for scope in Scope}
    lacking = {scope: await made(admin, *set(Scope) - {scope}) for scope in set(SCOPED.values())}
    for route, scope in SCOPED.items():
        method, path = path_of(route, **ids)
        async with as_key(app, fitting[scope]) as one, as_key(app, lacking[scope]) as other:
            assert (await one.request(method, path)).status_code not in (303, 401, 403), route
            refused = await other.request(method, path)
            if path.startswith(("/v1", "/internal")):
                assert (refused.status_code, refused.json()["code"]) == (403, "out_of_scope"), route
                assert f"lacks the scope {scope}" in refused.json()["detail"]
            else:
                assert refused.status_code == 303, route


async def test_another_projects_things_are_not_there(
    app: FastAPI,
    admin: CoordinatorClient,
    taught: Callable[..., dict[str, Any]],
    spec: Callable[..., dict[str, Any]],
    teacher_info: Callable[..., TeacherInfo],
):
    """Two tenants, every route: with ids of the first the second gets what ids of nobody get."""
    await admin.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
    file = await admin.upload(b"theirs", "theirs")
    run = await admin.submit(taught(), "same-key")
    key = (await admin.keys())[0:1] or [(await admin.create_key(KeyRequest(name="k", scopes=frozenset(Scope)))).key]
    ids = {"run_id": run.id, "file_id": file.id, "name": "walker", "key_id": key[0].id}
    secret = await made(admin, *set(Scope) - {Scope.PROJECTS_ADMIN})
    async with as_key(app, secret) as tenant:
        for route in GUARDED:
            method, path = path_of(route, **ids)
            answer = await tenant.request(method, path)
            if NEEDS[route] is Access.HOLDER:
                assert (answer.status_code, answer.json()["code"]) == (409, "stale_epoch"), route
            elif "{" in route and route not in OWN:
                assert answer.status_code == 404, route
                nobody = await tenant.request(*path_of(route, **dict.fromkeys(ids, "none")))
                assert nobody.status_code == 404
                assert re.sub("|".join(ids.values()), "none", answer.text) == nobody.text, route
            elif route not in NEW and not route.endswith("/audit"):  # which tells the tenant what it asked for itself
                assert not any(name in answer.text for name in ids.values()), route
        assert (await tenant.post("/internal/v1/leases", json={"worker": "w"})).status_code == 204
        taken = await tenant.post("/v1/teachers", json=registration(teacher_info()))
        assert (taken.status_code, taken.json()["code"]) == (409, "teacher_name_taken")
        for body, code in (
            (taught(), "unknown_teacher"),
            (spec(data={"train": f"file:{file.id}"}), "unknown_file"),
        ):
            assert (await tenant.post("/v1/runs", json=body)).json()["code"] == code
        own = await tenant.post("/v1/runs", json=spec(), headers={"Idempotency-Key": "same-key"})
        assert own.status_code == 201, "the key of another project's run is another key"
        assert (await tenant.get(f"/runs/{own.json()['id']}/compare/{run.id}")).status_code == 404
        again = await tenant.post("/v1/files", content=b"theirs")
        assert (again.status_code, again.json()["id"]) == (201, file.id), "new for who uploads it"
        assert [each["id"] for each in (await tenant.get("/v1/runs")).json()["data"]] == [own.json()["id"]]
    assert [each.id for each in (await admin.runs()).data] == [run.id]
    assert (await admin.run(run.id)).status is RunStatus.QUEUED
    assert [teacher.name for teacher in await admin.teachers()] == ["walker"]


async def test_a_tenant_reaches_nothing_of_another_by_a_path(
    app: FastAPI, admin: CoordinatorClient, spec: Callable[..., dict[str, Any]], guarded_settings: Settings
):
    """Neither a stored upload, nor another run's model, nor what no operator shares; however the path is written."""
    file = await admin.upload(b"theirs", "theirs")
    run = await admin.submit(spec())
    own, sha256 = guarded_settings.data_dir, file.id.removeprefix("file-")
    kept = [f"{own}/files/{sha256}", f"{own}/artefacts/{run.id}/model", f"/models/../{own}/files", str(own)]
    elsewhere = ["/etc/passwd", "/models/../etc/passwd", "/modelsx/student", "/", "//etc/passwd"]
    async with as_key(app, await made(admin, Scope.RUNS_WRITE)) as tenant:
        for path, said in [*((each, "own folder") for each in kept), *((each, "/models, /data") for each in elsewhere)]:
            for field, sections in {
                "student.model": {"student": {"model": path}},
                "reference.model": {"reference": {"model": path}, "stabilizers": [{"kind": "reference_kl"}]},
                "data.train": {"data": {"train": path}},
                "data.eval": {"data": {"train": "/data/prompts.jsonl", "eval": path}},
            }.items():
                refused = await tenant.post("/v1/runs", json=spec(**sections))
                told = refused.json()
                assert (refused.status_code, told["code"], told["field"]) == (422, "invalid_input", field), path
                assert said in told["detail"] or "own folder" in told["detail"]
        hub = {"model": f"{own}/artefacts/{run.id}/model", "revision": "0" * 40}
        assert (await tenant.post("/v1/runs", json=spec(student=hub))).status_code == 422
        assert (await tenant.post("/v1/runs", json=spec(student=hub | {"model": "../x"}))).status_code == 422
        assert (await tenant.post("/v1/runs", json=spec(student=hub | {"model": "org/name"}))).status_code == 201
        assert (await tenant.post("/v1/runs", json=spec())).status_code == 201


def registration(info: TeacherInfo) -> dict[str, Any]:
    return {"name": info.name, "url": "http://127.0.0.1:1", "info": info.model_dump(mode="json")}


async def test_a_secret_is_told_once_and_kept_as_a_digest(admin: CoordinatorClient, database: Database):
    new = await admin.create_key(KeyRequest(name="ci", scopes=frozenset({Scope.RUNS_READ})))
    assert new.secret.startswith("tk_")
    assert (new.key.project, new.key.created_by, new.key.expires_at) == ("default", "file:admin", None)
    [listed] = await admin.keys()
    assert listed == new.key
    with database.read() as session:
        row = session.scalars(select(KeyRow)).one()
        assert row.sha256 == digest(new.secret)
        assert new.secret not in str([getattr(row, column.key) for column in inspect(KeyRow).columns])


async def test_a_repeated_request_makes_no_second_key(app: FastAPI, admin: CoordinatorClient, database: Database):
    """It is told which one there is, as its secret is not kept; so are all but one of those that come at once."""
    body = KeyRequest(name="ci", scopes=frozenset({Scope.RUNS_READ, Scope.RUNS_WRITE, Scope.FILES_READ}))
    new = await admin.create_key(body, "once")
    with pytest.raises(ProblemResponse) as refused:
        await admin.create_key(body, "once")
    assert (refused.value.status, refused.value.code) == (409, "key_made_before")
    assert f"made {new.key.id} (ci) before" in refused.value.detail
    assert f"DELETE /v1/keys/{new.key.id} revokes it" in refused.value.detail
    assert new.secret not in refused.value.detail
    with pytest.raises(ProblemResponse, match=f"made {new.key.id} from another body") as other:
        await admin.create_key(body.model_copy(update={"name": "cd"}), "once")
    assert (other.value.status, other.value.code) == (422, "idempotency_key_reused")
    assert [key.id for key in await admin.keys()] == [new.key.id]
    assert len((await admin.audit(action=Action.KEY_CREATE)).data) == 1
    await admin.revoke_key(new.key.id)
    assert (await admin.create_key(body, "twice")).key.id != new.key.id
    keeper = await made(admin, *body.scopes, Scope.KEYS_ADMIN)
    async with CoordinatorClient(URL, keeper, httpx2.ASGITransport(app)) as tenant:
        assert (await tenant.create_key(body, "once")).key.project == "other", "of another project it is another key"
    asked = [admin.create_key(body, "at once") for _ in range(8)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["NewKey", *["ProblemResponse"] * 7]


async def test_a_revoked_and_an_expired_key_say_so(app: FastAPI, admin: CoordinatorClient, database: Database):
    request = KeyRequest(name="ci", scopes=frozenset({Scope.RUNS_READ}), expires_in_s=60)
    first, second = await admin.create_key(request), await admin.create_key(request)
    async with as_key(app, first.secret) as one, as_key(app, second.secret) as other:
        assert (await one.get("/v1/runs")).status_code == 200
        revoked = await admin.revoke_key(first.key.id)
        assert revoked.revoked_at is not None
        assert await admin.revoke_key(first.key.id) == revoked, "again changes nothing"
        said = (await one.get("/v1/runs")).json()
        assert (said["status"], said["code"]) == (401, "unauthorized")
        assert f"{first.key.id} (ci) was revoked" in said["detail"]
        assert (await other.get("/v1/runs")).status_code == 200
        with database.write() as session:
            session.execute(update(KeyRow).where(KeyRow.id == second.key.id).values(expires_at=1.0))
        assert f"{second.key.id} (ci) has expired" in (await other.get("/v1/runs")).json()["detail"]
    with pytest.raises(ProblemResponse, match="there is no key 'key-0'"):
        await admin.revoke_key("key-0")


async def test_a_key_gives_no_more_than_it_has(app: FastAPI, admin: CoordinatorClient):
    own = await made(admin, Scope.KEYS_ADMIN, Scope.RUNS_READ, project="own")
    async with CoordinatorClient(URL, own, httpx2.ASGITransport(app)) as keeper:
        given = await keeper.create_key(KeyRequest(name="k", scopes=frozenset({Scope.RUNS_READ})))
        assert given.key.project == "own"
        for more in ({"scopes": {"runs:write"}}, {"scopes": {"runs:read"}, "project": "default"}):
            with pytest.raises(ProblemResponse) as refused:
                await keeper.create_key(KeyRequest.model_validate({"name": "k"} | more))
            assert (refused.value.status, refused.value.code) == (403, "out_of_scope")
        assert {key.project for key in await keeper.keys()} == {"own"}
        foreign = (await admin.create_key(KeyRequest(name="k", scopes=frozenset({Scope.RUNS_READ})))).key
        with pytest.raises(ProblemResponse) as missing:
            await keeper.revoke_key(foreign.id)
        assert missing.value.status == 404
    assert {key.project for key in await admin.keys()} == {"own", "default"}, "projects:admin sees all"


async def test_a_key_that_asks_too_fast_is_told_when_to_ask_again(app: FastAPI, admin: CoordinatorClient):
    """A rate so low that no second request comes in time, however slow the machine."""
    request = KeyRequest(name="k", scopes=frozenset({Scope.RUNS_READ}), requests_per_s=0.0001)
    new, other = await admin.create_key(request), await made(admin, Scope.RUNS_READ, project="default")
    assert new.key.requests_per_s == 0.0001
    async with as_key(app, new.secret) as slow, as_key(app, other) as free:
        assert (await slow.get("/v1/runs")).status_code == 200
        refused = await slow.get("/v1/runs")
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert f"the key {new.key.id} may ask for 0.0001 requests a second" in refused.json()["detail"]
        after_s = int(refused.headers["retry-after"])
        assert 9_000 < after_s <= 10_000
        assert refused.headers["ratelimit-policy"] == '"key";q=1;w=10000'
        assert refused.headers["ratelimit"] == f'"key";r=0;t={after_s}'
        assert (await slow.get("/")).status_code == 429
        assert [(await free.get("/v1/runs")).status_code for _ in range(5)] == [200] * 5


def step(epoch: int) -> StepReport:
    return StepReport(epoch=epoch, step=1, metrics={"loss": 1.0}, student_tokens=1, teacher_tokens=1, rollouts=[])


async def test_the_token_of_a_lost_lease_opens_nothing(
    app: FastAPI,
    admin: CoordinatorClient,
    pushed_spec: dict[str, Any],
    rollout: Callable[[str], Rollout],
    database: Database,
):
    run_id = (await admin.submit(pushed_spec)).id
    await admin.push_rollouts(run_id, [rollout("p-1")])
    transport = httpx2.ASGITransport(app)
    async with (
        WorkerClient(URL, FILES["trainer"], transport) as old,
        WorkerClient(URL, FILES["trainer"], transport) as new,
    ):
        first = await leased(old)
        await old.heartbeat(run_id, Heartbeat(epoch=first.epoch, status="running", conditions={}))
        assert [each.id for each in (await old.pushed(run_id)).data] == ["p-1"]
        with database.write() as session:  # as the sweep does when the lease runs out
            finish(session, Settings(), run_id, Outcome(epoch=first.epoch, result="crashed"))
        with pytest.raises(StaleEpoch):
            await old.pushed(run_id)
        second = await leased(new)
        assert second.epoch == first.epoch + 1
        for call in (
            old.heartbeat(run_id, Heartbeat(epoch=second.epoch, status="running", conditions={})),
            old.report_step(run_id, step(second.epoch)),
            old.report_outcome(run_id, Outcome(epoch=second.epoch, result="failed")),
            old.pushed(run_id),
        ):
            with pytest.raises(StaleEpoch, match="not the token of the lease"):
                await call  # the epoch is the current one: it is the token that is refused
        await new.report_step(run_id, step(second.epoch))
        for _ in range(2):  # the second time as if the first answer had been lost
            await new.report_outcome(run_id, Outcome(epoch=second.epoch, result="failed"))


async def leased(worker: WorkerClient) -> Lease:
    lease = await worker.lease("w")
    assert lease is not None
    return lease


async def test_a_key_that_leases_writes_nothing_without_the_token(app: FastAPI, admin: CoordinatorClient, spec: Any):
    run_id = (await admin.submit(spec())).id
    async with as_key(app, FILES["trainer"]) as trainer, as_key(app, FILES["admin"]) as owner:
        lease = (await trainer.post("/internal/v1/leases", json={"worker": "w"})).json()
        beat = {"epoch": lease["epoch"], "status": "running", "conditions": {}}
        for client in (trainer, owner):
            answer = await client.post(f"/internal/v1/runs/{run_id}/heartbeat", json=beat)
            assert (answer.status_code, answer.json()["code"]) == (409, "stale_epoch")
        assert (await trainer.get("/v1/runs")).status_code == 403
    async with as_key(app, lease["token"]) as holder:
        assert (await holder.post(f"/internal/v1/runs/{run_id}/heartbeat", json=beat)).status_code == 200
        assert (await holder.get("/v1/runs")).status_code == 401, "a token is no key"


async def test_a_browser_signs_in_and_no_other_site_acts_by_it(app: FastAPI, admin: CoordinatorClient, spec: Any):
    run_id = (await admin.submit(spec())).id
    async with as_key(app, None) as browser:
        asked = await browser.get(f"/runs/{run_id}")
        form = await browser.get(asked.headers["location"])
        assert f'name="to" value="/runs/{run_id}"' in form.text
        wrong = await browser.post("/sign-in", data={"key": "tk_wrong", "to": "/"})
        assert (wrong.status_code, "does not know the key" in wrong.text) == (401, True)
        assert not browser.cookies
        signed = await browser.post("/sign-in", data={"key": FILES["admin"], "to": f"/runs/{run_id}"})
        assert (signed.status_code, signed.headers["location"]) == (303, f"/runs/{run_id}")
        cookie = signed.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        for page in (f"/runs/{run_id}", "/", f"/v1/runs/{run_id}/events"):
            assert (await browser.get(page)).status_code == 200
        for site in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
            assert (await browser.post(f"/v1/runs/{run_id}/cancel", headers=site)).status_code == 401
        paused = await browser.post(f"/v1/runs/{run_id}/pause", headers={"Sec-Fetch-Site": "same-origin"})
        assert paused.json()["status"] == "paused"
        await browser.post("/sign-out")
        assert COOKIE not in browser.cookies
        assert (await browser.get("/")).status_code == 303


@pytest.mark.parametrize("to", ["//evil.test/", "https://evil.test/", "/\\evil.test", "/a\nb", ""])
async def test_signing_in_leads_nowhere_else(app: FastAPI, to: str):
    async with as_key(app, None) as browser:
        signed = await browser.post("/sign-in", data={"key": FILES["admin"], "to": to})
        assert signed.headers["location"] == "/"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "coordinator")),
    ],
)
def test_only_this_machines_addresses_are_open(host: str, loopback: bool):
    assert is_loopback(host) is loopback
    assert Settings(host=host).asks_for_keys is not loopback
    assert Settings(host=host, require_keys=True).asks_for_keys


async def test_where_others_reach_it_it_starts_with_a_key_only(
    settings: Settings, database: Database, app: FastAPI, admin: CoordinatorClient
):
    public = settings.model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(
        InvalidInput, match=r"at 0\.0\.0\.0 callers need a key and none is known; give --admin-key-file"
    ):
        build_app(public, database)
    new = await admin.create_key(KeyRequest(name="k", scopes=frozenset({Scope.KEYS_ADMIN})))
    assert build_app(public, database)
    await admin.revoke_key(new.key.id)
    with pytest.raises(InvalidInput, match="none is known"):
        build_app(public, database)


@pytest.mark.parametrize(
    ("content", "said"),
    [("short", "has 5 characters; give at least 32"), ("two keys " * 9, "must hold one key")],
)
def test_a_file_without_a_good_key_is_refused(
    settings: Settings, database: Database, tmp_path: Path, content: str, said: str
):
    (tmp_path / "key").write_text(content)
    with pytest.raises(InvalidInput, match=said):
        build_app(settings.model_copy(update={"admin_key_file": tmp_path / "key"}), database)


def test_two_roles_with_one_key_are_refused(settings: Settings, database: Database, tmp_path: Path):
    (tmp_path / "key").write_text(FILES["admin"])
    both = {"admin_key_file": tmp_path / "key", "trainer_key_file": tmp_path / "key"}
    with pytest.raises(InvalidInput, match="holds the key of another role"):
        build_app(settings.model_copy(update=both), database)
