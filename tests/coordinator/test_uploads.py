"""Uploads in parts: what arrives stays whatever breaks, is one project's own, and is a file once its hash is right."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cut_off import cut_off
from fastapi import FastAPI
from guarded import FILES, URL, as_key, made
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tutelage.coordinator.app import build_app
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.uploads import KEPT_S, Partial, forget
from tutelage.serving import ServiceProblem
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import PROJECT, Action, Scope

CONTENT = random.Random(7).randbytes(3000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
numbers = itertools.count()


def path_of(content: bytes) -> str:
    return f"/v1/uploads/{hashlib.sha256(content).hexdigest()}"


PATH = path_of(CONTENT)


def headers(offset: int, length: int = len(CONTENT)) -> dict[str, str]:
    return {"Upload-Offset": str(offset), "Upload-Length": str(length)}


async def send(http: httpx2.AsyncClient, offset: int, part: Any, path: str = PATH, **length: int) -> httpx2.Response:
    return await http.patch(f"{path}?filename=model.tar", content=part, headers=headers(offset, **length))


async def send_and_break(app: FastAPI, offset: int, chunks: Sequence[bytes], path: str, length: int) -> None:
    """A part whose connection breaks behind these chunks, as a server hears of it."""
    heard = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages = iter([*heard, {"type": "http.disconnect"}])
    named = {"host": "localhost"} | headers(offset, length)
    told = [(name.lower().encode(), value.encode()) for name, value in named.items()]
    scope = {"type": "http", "method": "PATCH", "path": path, "raw_path": path.encode(), "headers": told}
    scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("c", 80), "root_path": ""}

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def drop(_: Any) -> None:
        return

    await app(scope, receive, drop)


def unfinished(settings: Settings) -> list[Path]:
    return [path for path in settings.files.glob("unfinished/**/*") if path.is_file()]


async def test_parts_become_the_file_with_the_last_of_them(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, settings: Settings
) -> None:
    assert (await http.get(PATH)).json() == {"sha256": SHA256, "offset": 0, "file": None}
    first = await send(http, 0, CONTENT[:1000])
    assert (first.status_code, first.json()) == (200, {"sha256": SHA256, "offset": 1000, "file": None})
    assert (await coordinator.uploaded(SHA256)).offset == 1000
    assert await coordinator.files() == []
    last = await send(http, 1000, CONTENT[1000:])
    file = last.json()["file"]
    assert (last.status_code, last.json()["offset"], file["filename"]) == (201, len(CONTENT), "model.tar")
    assert (file["id"], file["sha256"], file["bytes"]) == (f"file-{SHA256[:32]}", SHA256, len(CONTENT))
    assert (await http.get(f"/v1/files/{file['id']}/content")).content == CONTENT
    for again in (await send(http, 1000, CONTENT[1000:]), await send(http, 0, b""), await http.get(PATH)):
        assert (again.status_code, again.json()) == (200, last.json()), "as after an answer that was lost"
    assert unfinished(settings) == []
    told = [(entry.target, entry.status) for entry in (await coordinator.audit(action=Action.FILE_UPLOAD)).data]
    assert told == [(file["id"], 201)], "once, when it is whole"


async def test_an_empty_file_is_a_part_of_nothing(http: httpx2.AsyncClient) -> None:
    answer = await send(http, 0, b"", path_of(b""), length=0)
    assert (answer.status_code, answer.json()["file"]["bytes"]) == (201, 0)


@examples(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.tuples(st.lists(st.integers(0, 900), max_size=4), st.booleans()), max_size=6))
def test_wherever_connections_break_what_arrived_stays(app: FastAPI, parts: list[tuple[list[int], bool]]) -> None:
    content = random.Random(next(numbers)).randbytes(2500)

    async def upload() -> None:
        arrived = 0
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=URL) as http:
            for sizes, breaks in parts:
                ends = [min(end, len(content) - 1) for end in itertools.accumulate(sizes, initial=arrived)]
                chunks = [content[start:end] for start, end in itertools.pairwise(ends)]
                if breaks:
                    await send_and_break(app, arrived, chunks, path_of(content), len(content))
                else:
                    await send(http, arrived, b"".join(chunks), path_of(content), length=len(content))
                arrived = ends[-1]
                assert (await http.get(path_of(content))).json()["offset"] == arrived
            file = (await send(http, arrived, content[arrived:], path_of(content), length=len(content))).json()["file"]
            assert (await http.get(f"/v1/files/{file['id']}/content")).content == content

    asyncio.run(upload())


async def test_a_broken_connection_is_no_fault_of_the_service(app: FastAPI, http: httpx2.AsyncClient) -> None:
    await send_and_break(app, 0, [CONTENT[:10]], PATH, len(CONTENT))
    assert 'route="/v1/uploads/{sha256}",status="400"' in (await http.get("/metrics")).text


@pytest.mark.parametrize("offset", [0, 999, 1001, 10**30])
async def test_a_part_that_begins_elsewhere_is_told_where_to_go_on(http: httpx2.AsyncClient, offset: int) -> None:
    await send(http, 0, CONTENT[:1000])
    moved = await send(http, offset, b"")
    assert (moved.status_code, moved.json()["code"], moved.json()["field"]) == (409, "upload_moved", "Upload-Offset")
    assert f"stands at byte 1000 and this part begins at byte {offset}; ask for" in moved.json()["detail"]
    assert moved.headers["upload-offset"] == "1000"
    nothing = await send(http, 5, b"x", path_of(b"another"))
    assert (nothing.status_code, nothing.headers["upload-offset"]) == (409, "0")
    assert (await send(http, 1000, CONTENT[1000:])).status_code == 201


async def test_of_two_writers_one_is_told_to_go_on_where_the_other_got_to(http: httpx2.AsyncClient) -> None:
    """The first stands still in the midst of its part, as behind a line that is dead, and keeps nobody from it."""
    goes_on = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield CONTENT[:100]
        await goes_on.wait()
        yield CONTENT[100:]

    first = asyncio.create_task(send(http, 0, stalls()))
    while (await http.get(PATH)).json()["offset"] < 100:
        await asyncio.sleep(0)
    second = await send(http, 100, CONTENT[100:200])
    goes_on.set()
    assert (second.status_code, second.json()["offset"]) == (200, 200)
    assert ((await first).status_code, (await first).headers["upload-offset"]) == (409, "200")
    assert (await send(http, 200, CONTENT[200:])).status_code == 201


async def test_while_one_process_writes_another_is_told_so(http: httpx2.AsyncClient, settings: Settings) -> None:
    await send(http, 0, CONTENT[:100])
    [path] = unfinished(settings)
    with path.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        busy = await send(http, 100, CONTENT[100:])
    assert (busy.status_code, busy.headers["upload-offset"]) == (409, "100")
    assert "stands at byte 100 and another request writes it" in busy.json()["detail"]
    assert (await send(http, 100, CONTENT[100:])).status_code == 201


async def test_what_was_open_when_the_file_became_whole_writes_nothing_to_it(settings: Settings) -> None:
    """A writer that comes too late finds a new upload, which has nothing yet."""
    settings.files.mkdir(exist_ok=True)
    partial = Partial(settings.files, PROJECT, SHA256)
    partial.append(0, CONTENT)
    with pytest.raises(ServiceProblem) as moved, partial.whole() as content:
        partial.append(content.bytes, b"more")
    assert moved.value.code == "upload_moved"
    with partial.whole():
        pass
    with pytest.raises(ServiceProblem, match="stands at byte 0"):
        partial.append(len(CONTENT), b"more")
    assert (settings.files / SHA256).read_bytes() == CONTENT


async def test_other_content_is_dropped(http: httpx2.AsyncClient, settings: Settings) -> None:
    await send(http, 0, b"x" * 10)
    refused = await send(http, 10, CONTENT[10:])
    assert (refused.status_code, refused.json()["code"]) == (422, "other_content")
    assert "the 3000 bytes that arrived hash to " in refused.json()["detail"]
    assert unfinished(settings) == []
    assert (await send(http, 0, CONTENT)).status_code == 201


async def test_more_than_was_announced_and_more_than_fits_is_refused(
    http: httpx2.AsyncClient, settings: Settings
) -> None:
    over = await send(http, 0, CONTENT, length=settings.max_file_bytes + 1)
    assert (over.status_code, over.json()["code"], over.json()["field"]) == (413, "too_large", "Upload-Length")
    assert f"a file may have {settings.max_file_bytes} bytes here and this one has 4097" in over.json()["detail"]
    longer = await send(http, 0, CONTENT, length=2999)
    assert (longer.status_code, longer.json()["code"]) == (413, "too_large")
    assert "the body goes on behind the 2999 bytes" in longer.json()["detail"]
    body = await send(http, 0, bytes(settings.max_file_bytes + 1))
    assert (body.status_code, body.json()["code"]) == (413, "too_large")
    assert (await http.get(PATH)).json()["offset"] == 0


@pytest.mark.parametrize(
    ("path", "told", "field"),
    [
        ("/v1/uploads/abc", headers(0), "sha256"),
        (f"/v1/uploads/{SHA256.upper()}", headers(0), "sha256"),
        (PATH, {"Upload-Length": "3000"}, "Upload-Offset"),
        (PATH, headers(-1), "Upload-Offset"),
        (PATH, headers(0) | {"Upload-Length": "many"}, "Upload-Length"),
    ],
)
async def test_a_part_without_its_place_is_refused(
    http: httpx2.AsyncClient, settings: Settings, path: str, told: dict[str, str], field: str
) -> None:
    answer = await http.patch(path, content=b"x", headers=told)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "invalid_input", field)
    assert unfinished(settings) == []


async def test_each_project_sends_a_content_for_itself(guarded_app: FastAPI, database: Database) -> None:
    async with CoordinatorClient(URL, FILES["admin"], httpx2.ASGITransport(guarded_app)) as admin:
        secrets = [await made(admin, Scope.FILES_WRITE, Scope.FILES_READ, project=name) for name in ("a", "b")]
    async with as_key(guarded_app, secrets[0]) as one, as_key(guarded_app, secrets[1]) as other:
        await send(one, 0, CONTENT[:1000])
        assert (await other.get(PATH)).json()["offset"] == 0
        await send(other, 0, CONTENT[:2000])
        assert (await one.get(PATH)).json()["offset"] == 1000
        assert (await send(one, 1000, CONTENT[1000:])).status_code == 201
        assert (await other.get(PATH)).json() == {"sha256": SHA256, "offset": 2000, "file": None}
        assert (await other.get("/v1/files")).json()["data"] == []
        assert (await send(other, 2000, CONTENT[2000:])).status_code == 201, "new for who sends it"
        for project in (one, other):
            assert (await project.get(f"/v1/files/file-{SHA256[:32]}/content")).content == CONTENT


async def test_an_outage_of_the_database_at_the_end_costs_no_byte(empty_url: Callable[[], str], tmp_path: Path) -> None:
    database = Database(empty_url())
    app = build_app(Settings(data_dir=tmp_path), database)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=URL) as http:
        await send(http, 0, CONTENT[:2000])
        with ExitStack() as outage:

            async def rest() -> AsyncIterator[bytes]:
                yield CONTENT[2000:]
                outage.enter_context(cut_off(database, empty_url))

            assert (await send(http, 2000, rest())).status_code == 503
        assert (await http.get(PATH)).json()["offset"] == 3000
        assert (await send(http, 3000, b"")).status_code == 201
    database.close()


async def test_a_file_whose_bytes_are_gone_is_uploaded_again(http: httpx2.AsyncClient, settings: Settings) -> None:
    file = (await send(http, 0, CONTENT)).json()["file"]
    (settings.files / SHA256).unlink()
    assert (await http.get(PATH)).json()["offset"] == 0
    again = await send(http, 0, CONTENT)
    assert (again.status_code, again.json()["file"]) == (200, file)
    assert (await http.get(f"/v1/files/{file['id']}/content")).content == CONTENT


async def test_what_nobody_goes_on_with_is_gone_after_a_day(http: httpx2.AsyncClient, settings: Settings) -> None:
    assert forget(settings.files) == 0, "before the first upload too"
    abandoned, going_on, written = b"abandoned", b"going on", b"written"
    for content in (abandoned, going_on, written):
        await send(http, 0, content[:3], path_of(content), length=len(content))
    whole = (await http.post("/v1/files", content=b"whole")).json()
    yesterday = time.time() - KEPT_S - 1
    for path in unfinished(settings):
        if path.name in path_of(abandoned) + path_of(written):
            os.utime(path, (yesterday, yesterday))
    os.utime(settings.files / whole["sha256"], (yesterday, yesterday))
    [held] = [path for path in unfinished(settings) if path.name in path_of(written)]
    with held.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert forget(settings.files) == 1
    offsets = [(await http.get(path_of(content))).json()["offset"] for content in (abandoned, going_on, written)]
    assert offsets == [0, 3, 3]
    assert (settings.files / whole["sha256"]).exists()
    assert (await send(http, 0, abandoned, path_of(abandoned), length=9)).status_code == 201


async def test_the_client_goes_on_with_a_file_and_sends_nothing_of_what_is_there(
    app: FastAPI, http: httpx2.AsyncClient, coordinator: CoordinatorClient, tmp_path: Path
) -> None:
    source = tmp_path / "model.tar"
    source.write_bytes(CONTENT)
    await send_and_break(app, 0, [CONTENT[:1000]], PATH, len(CONTENT))
    told: list[tuple[int, int]] = []
    file = await coordinator.upload(source, progress=lambda *how_far: told.append(how_far))
    assert (file.sha256, file.filename, told) == (SHA256, "model.tar", [(1000, 3000), (3000, 3000)])
    assert await coordinator.upload(source, "another.tar", progress=lambda *_: pytest.fail("it was sent")) == file
    assert await coordinator.upload(CONTENT) == file


async def test_the_client_says_what_is_wrong_with_a_file(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, settings: Settings, tmp_path: Path
) -> None:
    source = tmp_path / "model.tar"
    source.write_bytes(bytes(settings.max_file_bytes + 1))
    with pytest.raises(ProblemResponse, match="a file may have 4096 bytes here"):
        await coordinator.upload(source)
    source.write_bytes(CONTENT)
    await send(http, 0, CONTENT + b"more", length=4000)
    with pytest.raises(ProblemResponse, match=r"the 3004 bytes that arrived hash to .* upload it again"):
        await coordinator.upload(source)
    assert (await coordinator.upload(source)).sha256 == SHA256
