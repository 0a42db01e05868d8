"""Files by content, and the registry of teachers."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from guarded import URL
from sqlalchemy import update

from tutelage.coordinator.app import build_app
from tutelage.coordinator.db import Database, now
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import TeacherRow
from tutelage.coordinator.teachers import FRESH_S
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput, ProblemResponse
from tutelage_client.wire import TeacherInfo


def stored(settings: Settings) -> list[str]:
    """Every file on the disk, those that are not whole included."""
    return sorted(path.name for path in settings.files.rglob("*") if path.is_file())


async def test_the_same_content_is_one_file(http: httpx2.AsyncClient, settings: Settings):
    content = b"some prompts"
    sha256 = hashlib.sha256(content).hexdigest()
    first = await http.post("/v1/files?filename=a.jsonl", content=content)
    again = await http.post("/v1/files?filename=b.jsonl", content=content)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["id"] == f"file-{sha256[:32]}"
    assert (first.json()["sha256"], first.json()["bytes"], first.json()["filename"]) == (sha256, 12, "a.jsonl")
    assert stored(settings) == [sha256]
    assert (await http.get("/v1/files")).json()["data"] == [first.json()]
    assert (await http.get(f"/v1/files/{first.json()['id']}")).json() == first.json()
    assert (await http.get(f"/v1/files/{first.json()['id']}/content")).content == content


async def parts(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(1000)


async def test_a_file_over_the_limit_is_refused_and_leaves_nothing(http: httpx2.AsyncClient, settings: Settings):
    declared = await http.post("/v1/files", content=bytes(settings.max_file_bytes + 1))
    streamed = await http.post("/v1/files", content=parts(5))
    assert (declared.status_code, streamed.status_code) == (413, 413)
    assert stored(settings) == []
    whole = await http.post("/v1/files", content=bytes(settings.max_file_bytes))
    assert whole.status_code == 201


async def test_a_large_file_goes_up_and_down_by_path(coordinator: CoordinatorClient, tmp_path: Path):
    source = tmp_path / "data.bin"
    source.write_bytes(bytes(range(256)) * 16)
    file = await coordinator.upload(source)
    assert (file.filename, file.bytes) == ("data.bin", 4096)
    copy = await coordinator.download_file(file.id, tmp_path / "new" / "copy.bin")
    assert copy.read_bytes() == source.read_bytes()
    assert [path.name for path in copy.parent.iterdir()] == ["copy.bin"]


async def test_content_that_changed_on_disk_is_not_taken_for_the_file(
    coordinator: CoordinatorClient, settings: Settings, tmp_path: Path
):
    file = await coordinator.upload(b"as it was", "a")
    (settings.files / file.sha256).write_bytes(b"as it wasn't")
    with pytest.raises(InvalidInput, match="other content"):
        await coordinator.download_file(file.id, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


async def test_missing_files_and_missing_content_are_told_apart(http: httpx2.AsyncClient, settings: Settings):
    for path in ("/v1/files/file-0", "/v1/files/file-0/content"):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")
    file = (await http.post("/v1/files", content=b"x")).json()
    (settings.files / file["sha256"]).unlink()
    answer = await http.get(f"/v1/files/{file['id']}/content")
    assert (answer.status_code, answer.json()["code"]) == (404, "content_missing")


async def test_a_teacher_registers_under_its_name_and_the_last_word_stands(
    coordinator: CoordinatorClient, teacher_info: Callable[..., TeacherInfo]
):
    await coordinator.register_teacher("walker", "http://127.0.0.1:1", teacher_info())
    await coordinator.register_teacher("baker", "http://127.0.0.1:2", teacher_info("baker"))
    await coordinator.register_teacher("walker", "http://127.0.0.1:3", teacher_info(max_top_k=3))
    teachers = await coordinator.teachers()
    assert [(t.name, t.url, t.available) for t in teachers] == [
        ("baker", "http://127.0.0.1:2", True),
        ("walker", "http://127.0.0.1:3", True),
    ]
    assert teachers[1].info == teacher_info(max_top_k=3)


async def test_a_teacher_that_went_silent_is_not_available(
    coordinator: CoordinatorClient, database: Database, teacher_info: Callable[..., TeacherInfo]
):
    await coordinator.register_teacher("walker", "http://127.0.0.1:1", teacher_info())
    with database.write() as session:
        session.execute(update(TeacherRow).values(seen_at=now() - FRESH_S - 1))
    assert [t.available for t in await coordinator.teachers()] == [False]


async def test_a_teacher_that_was_taken_off_the_list_can_come_back(
    coordinator: CoordinatorClient, teacher_info: Callable[..., TeacherInfo]
):
    await coordinator.register_teacher("walker", "http://127.0.0.1:1", teacher_info())
    await coordinator.remove_teacher("walker")
    assert await coordinator.teachers() == []
    with pytest.raises(ProblemResponse, match="there is no teacher 'walker'") as refused:
        await coordinator.remove_teacher("walker")
    assert (refused.value.status, refused.value.code) == (404, "teacher_not_found")
    await coordinator.register_teacher("walker", "http://127.0.0.1:1", teacher_info())
    assert [teacher.name for teacher in await coordinator.teachers()] == ["walker"]


async def test_a_teacher_stays_on_the_list_while_a_run_that_goes_on_asks_it(
    coordinator: CoordinatorClient, teacher_info: Callable[..., TeacherInfo], taught: Callable[..., dict[str, Any]]
):
    await coordinator.register_teacher("walker", "http://127.0.0.1:1", teacher_info())
    run = await coordinator.submit(taught())
    with pytest.raises(ProblemResponse, match=f"{run.id}, which is queued, asks teacher 'walker'") as refused:
        await coordinator.remove_teacher("walker")
    assert (refused.value.status, refused.value.code) == (409, "teacher_in_use")
    await coordinator.cancel(run.id)
    await coordinator.remove_teacher("walker")


@pytest.mark.parametrize(
    "url",
    [
        *("http://169.254.169.254", "http://10.0.0.1:8200", "http://0.0.0.0:8200", "http://[::ffff:169.254.1.1]"),
        *("http://nobody.invalid:8200", "http://8.8.8.8"),
    ],
)
async def test_a_teacher_registers_where_teachers_may_be(
    url: str, http: httpx2.AsyncClient, teacher_info: Callable[..., TeacherInfo]
):
    body = {"name": "walker", "url": url, "info": teacher_info().model_dump(mode="json")}
    answer = await http.post("/v1/teachers", json=body)
    told = answer.json()
    assert (answer.status_code, told["code"], told["field"]) == (422, "address_not_allowed", "url")
    assert "--public-url" in told["detail"]
    assert (await http.get("/v1/teachers")).json()["data"] == []


async def test_the_operator_says_where_teachers_may_be(
    settings: Settings, database: Database, app: FastAPI, teacher_info: Callable[..., TeacherInfo]
):
    allowing = build_app(settings.model_copy(update={"teacher_addresses": ("10.0.0.0/8:8200",)}), database)
    async with CoordinatorClient(URL, transport=httpx2.ASGITransport(allowing)) as client:
        assert (await client.register_teacher("walker", "http://10.1.2.3:8200/", teacher_info())).url == (
            "http://10.1.2.3:8200"
        )
        for url in ("http://10.1.2.3:6379", "http://127.0.0.1:8200"):
            with pytest.raises(ProblemResponse, match="none of those that --teacher-addresses allows"):
                await client.register_teacher("walker", url, teacher_info())
        assert [teacher.url for teacher in await client.teachers()] == ["http://10.1.2.3:8200"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://user:pw@127.0.0.1:8200", "user or a password"),
        ("http://127.0.0.1:8200/v1", "'/v1'"),
        ("http://127.0.0.1:8200?a", "a query"),
        ("http://2130706433", "another form"),
    ],
)
async def test_an_address_says_where_a_teacher_is_and_nothing_else(
    url: str, said: str, http: httpx2.AsyncClient, teacher_info: Callable[..., TeacherInfo]
):
    body = {"name": "walker", "url": url, "info": teacher_info().model_dump(mode="json")}
    answer = await http.post("/v1/teachers", json=body)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "invalid_input", "url")
    assert said in answer.json()["detail"]
    assert "pw" not in answer.text


@pytest.mark.parametrize("change", [{"name": "a/b"}, {"name": "baker"}, {"url": "ftp://x"}, {"url": "walker:8000"}])
async def test_a_registration_that_could_not_be_used_is_refused(
    change: dict[str, str], http: httpx2.AsyncClient, teacher_info: Callable[..., TeacherInfo]
):
    body = {"name": "walker", "url": "http://127.0.0.1:1", "info": teacher_info().model_dump(mode="json")} | change
    answer = await http.post("/v1/teachers", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, next(iter(change)))
