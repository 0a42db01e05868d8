"""Deleting files: none that a run needs, and the bytes with their last project; and how much a project may have."""

from __future__ import annotations

import fcntl
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from guarded import FILES, URL, as_key, made

from tutelage.coordinator import files, leases, runs
from tutelage.coordinator.app import build_app
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.uploads import Content
from tutelage.serving import ServiceProblem
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import PROJECT, Action, FileView, Scope

MOST = 1000
IN_WAITING_S = 0.5  # that a transaction which must wait is watched for; one that need not is done long before
Spec = Callable[..., dict[str, Any]]
NAMED = {
    "data.train": lambda name: {"data": {"train": name}},
    "data.eval": lambda name: {"data": {"train": "/data/prompts.jsonl", "eval": name}},
    "student.model": lambda name: {"student": {"model": name}},
    "reference.model": lambda name: {"reference": {"model": name}, "stabilizers": [{"kind": "reference_kl"}]},
}


@pytest.fixture
async def file(coordinator: CoordinatorClient) -> FileView:
    return await coordinator.upload(b"prompts", "prompts.jsonl")


@pytest.fixture
def beside() -> Iterator[Callable[..., Future[Any]]]:
    """Begins something in another thread."""
    with ThreadPoolExecutor(2) as threads:
        yield threads.submit


@pytest.fixture
async def bounded(settings: Settings, database: Database) -> AsyncIterator[CoordinatorClient]:
    app = build_app(settings.model_copy(update={"max_project_bytes": MOST}), database)
    async with CoordinatorClient(URL, transport=httpx2.ASGITransport(app)) as client:
        yield client


def delete(database: Database, folder: Path, file_id: str) -> None:
    with database.write() as session:
        sha256 = files.remove(session, file_id, PROJECT)
    files.drop(database, folder, sha256)


async def test_a_deleted_file_is_gone_and_can_be_uploaded_again(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, settings: Settings, file: FileView
) -> None:
    gone = await http.delete(f"/v1/files/{file.id}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert await coordinator.files() == []
    assert not (settings.files / file.sha256).exists()
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = await http.request(method, f"/v1/files/{file.id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")
    [told] = (await coordinator.audit(action=Action.FILE_DELETE)).data
    assert (told.target, told.route, told.status) == (file.id, "DELETE /v1/files/{file_id}", 204)
    assert (await coordinator.uploaded(file.sha256)).offset == 0
    again = await http.post("/v1/files?filename=prompts.jsonl", content=b"prompts")
    assert (again.status_code, again.json()["id"]) == (201, file.id)
    assert (await http.get(f"/v1/files/{file.id}/content")).content == b"prompts"


@pytest.mark.parametrize("field", NAMED)
async def test_a_run_keeps_what_it_names_until_it_has_ended(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, spec: Spec, file: FileView, field: str
) -> None:
    run = await coordinator.submit(spec(**NAMED[field](f"file:{file.id}")))
    ended = await coordinator.submit(spec(**NAMED[field](f"file:{file.id}")))
    await coordinator.cancel(ended.id)
    refused = await http.delete(f"/v1/files/{file.id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "file_in_use")
    assert refused.headers["content-type"] == "application/problem+json"
    assert f"have not ended: {run.id} (queued); wait for their end or cancel them" in refused.json()["detail"]
    assert (await http.get(f"/v1/files/{file.id}/content")).content == b"prompts"
    assert (await coordinator.audit(action=Action.FILE_DELETE)).data == []
    await coordinator.cancel(run.id)
    await coordinator.delete_file(file.id)
    with pytest.raises(ProblemResponse, match="is not uploaded"):
        await coordinator.submit(spec(**NAMED[field](f"file:{file.id}")))


async def test_of_many_runs_the_first_are_named(coordinator: CoordinatorClient, spec: Spec, file: FileView) -> None:
    submitted = [await coordinator.submit(spec(data={"train": f"file:{file.id}"})) for _ in range(22)]
    with pytest.raises(ProblemResponse) as refused:
        await coordinator.delete_file(file.id)
    assert [run.id in refused.value.detail for run in submitted] == [True] * 20 + [False] * 2
    assert "and 2 more; wait" in refused.value.detail


async def test_a_run_that_is_submitted_meanwhile_keeps_its_file(
    database: Database, settings: Settings, spec: Spec, file: FileView, beside: Callable[..., Future[Any]]
) -> None:
    with database.write() as session:
        runs.submit(session, spec(data={"train": f"file:{file.id}"}), None)
        deleted = beside(delete, database, settings.files, file.id)
        assert wait([deleted], IN_WAITING_S).not_done
    with pytest.raises(ServiceProblem, match=r"\(queued\)"):
        deleted.result()
    assert (settings.files / file.sha256).exists()


async def test_a_run_that_is_submitted_while_its_file_goes_is_refused(
    database: Database, spec: Spec, file: FileView, beside: Callable[..., Future[Any]]
) -> None:
    def submit() -> None:
        with database.write() as session:
            runs.submit(session, spec(data={"train": f"file:{file.id}"}), None)

    with database.write() as session:
        files.remove(session, file.id, PROJECT)
        session.flush()
        submitted = beside(submit)
        assert wait([submitted], IN_WAITING_S).not_done
    with pytest.raises(ServiceProblem, match="is not uploaded"):
        submitted.result()


async def test_a_run_that_is_leased_meanwhile_keeps_its_file(
    coordinator: CoordinatorClient,
    database: Database,
    settings: Settings,
    spec: Spec,
    file: FileView,
    beside: Callable[..., Future[Any]],
) -> None:
    run = await coordinator.submit(spec(data={"train": f"file:{file.id}"}))

    def remove() -> None:
        with database.write() as session:
            files.remove(session, file.id, PROJECT)

    with database.write() as session:
        lease = leases.claim(session, settings, "w")
        session.flush()
        deleted = beside(remove)
        wait([deleted], IN_WAITING_S)
    assert lease is not None
    with pytest.raises(ServiceProblem, match=f"have not ended: {run.id}"):
        deleted.result()


async def test_bytes_of_several_projects_stay_for_the_last_of_them(
    guarded_app: FastAPI, database: Database, settings: Settings
) -> None:
    async with CoordinatorClient(URL, FILES["admin"], httpx2.ASGITransport(guarded_app)) as admin:
        secrets = [await made(admin, Scope.FILES_WRITE, Scope.FILES_READ, project=name) for name in ("a", "b")]
    async with as_key(guarded_app, secrets[0]) as one, as_key(guarded_app, secrets[1]) as other:
        file = (await one.post("/v1/files", content=b"both")).json()
        path, bytes_of = f"/v1/files/{file['id']}", settings.files / file["sha256"]
        assert (await other.delete(path)).status_code == 404, "not there for who has not uploaded it"
        await other.post("/v1/files", content=b"both")
        assert (await one.delete(path)).status_code == 204
        assert (await one.get(path)).status_code == 404
        assert (await other.get(f"{path}/content")).content == b"both"
        assert (await other.delete(path)).status_code == 204
        assert not bytes_of.exists()
        await other.patch(f"/v1/uploads/{file['sha256']}", content=b"b", headers=_place(0, 4))
        assert (await one.delete(f"/v1/uploads/{file['sha256']}")).status_code == 404
        assert (await other.delete(f"/v1/uploads/{file['sha256']}")).status_code == 204


async def test_bytes_that_another_project_registers_meanwhile_stay(
    database: Database, settings: Settings, file: FileView, beside: Callable[..., Future[Any]]
) -> None:
    with database.write() as session:
        files.remove(session, file.id, PROJECT)
    with database.write() as session:
        files.register(session, Content(file.sha256, file.bytes), "theirs", "other")
        dropped = beside(files.drop, database, settings.files, file.sha256)
        assert wait([dropped], IN_WAITING_S).not_done
    dropped.result()
    assert (settings.files / file.sha256).read_bytes() == b"prompts"


def _place(offset: int, length: int) -> dict[str, str]:
    return {"Upload-Offset": str(offset), "Upload-Length": str(length)}


async def test_an_unfinished_upload_is_deleted_unless_another_request_writes_it(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, settings: Settings
) -> None:
    sha256 = "ab" * 32
    path = f"/v1/uploads/{sha256}"
    await http.patch(path, content=b"some", headers=_place(0, 10))
    with (settings.files / "unfinished" / PROJECT / sha256).open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        busy = await http.delete(path)
    assert (busy.status_code, busy.json()["code"]) == (409, "upload_moved")
    assert (await coordinator.uploaded(sha256)).offset == 4
    await coordinator.delete_upload(sha256)
    assert (await coordinator.uploaded(sha256)).offset == 0
    gone = await http.delete(path)
    assert (gone.status_code, gone.json()["code"]) == (404, "upload_not_found")
    [told] = (await coordinator.audit(action=Action.FILE_DELETE)).data
    assert (told.target, told.route) == (f"file-{sha256[:32]}", "DELETE /v1/uploads/{sha256}")
    late = await http.patch(path, content=b"more", headers=_place(4, 10))
    assert (late.status_code, late.headers["upload-offset"]) == (409, "0"), "a sender is told to begin again"


async def test_files_of_a_project_are_bounded_whole_and_in_parts(
    bounded: CoordinatorClient, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "first").write_bytes(bytes(600))
    first = await bounded.upload(tmp_path / "first")
    with pytest.raises(ProblemResponse) as refused:
        await bounded.upload(b"x" * 401)
    assert (refused.value.status, refused.value.code) == (413, "project_full")
    said = "the files of the project default may have 1000 bytes here; they have 600, 0 have arrived of others, and 401"
    assert said in refused.value.detail
    assert "GET /v1/files lists" in refused.value.detail
    (tmp_path / "second").write_bytes(b"y" * 401)
    with pytest.raises(ProblemResponse, match="and 401 more would come"):
        await bounded.upload(tmp_path / "second")
    assert [path.name for path in settings.files.rglob("*") if path.is_file()] == [first.sha256]
    assert await bounded.upload(tmp_path / "first") == first, "what is there takes nothing more"
    assert (await bounded.upload(b"z" * 400)).bytes == 400
    await bounded.delete_file(first.id)
    assert (await bounded.upload(tmp_path / "second")).bytes == 401


async def test_what_has_arrived_counts_and_what_is_whole_counts_once(
    bounded: CoordinatorClient, database: Database, settings: Settings
) -> None:
    app = build_app(settings.model_copy(update={"max_project_bytes": MOST}), database)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=URL) as http:
        await http.patch(f"/v1/uploads/{'cd' * 32}", content=bytes(700), headers=_place(0, 900))
        with pytest.raises(ProblemResponse, match="they have 0, 700 have arrived of others, and 301 more"):
            await bounded.upload(b"x" * 301)
        refused = await http.patch(f"/v1/uploads/{'ef' * 32}", content=b"x", headers=_place(0, 301))
        assert (refused.status_code, refused.json()["code"]) == (413, "project_full"), "before its first byte"
        await bounded.delete_upload("cd" * 32)
        assert (await bounded.upload(b"x" * MOST)).bytes == MOST


async def test_files_that_become_whole_at_once_are_held_to_the_bound(
    database: Database, beside: Callable[..., Future[Any]]
) -> None:
    def register(digit: str) -> None:
        with database.write() as session:
            files.register(session, Content(digit * 64, 600), "f", PROJECT, MOST)

    with database.write() as session:
        files.register(session, Content("0" * 64, 600), "f", PROJECT, MOST)
        second = beside(register, "1")
        assert wait([second], IN_WAITING_S).not_done
    with pytest.raises(ServiceProblem, match="they have 600"):
        second.result()


async def test_projects_are_bounded_each_by_itself(database: Database) -> None:
    with database.write() as session:
        for project in ("a", "b"):
            files.register(session, Content("0" * 64, MOST), "f", project, MOST)
        assert files.taken(session, "a") == MOST
