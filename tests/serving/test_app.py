"""The skeleton of a service: every error is a problem, every body has a limit, health says what is true."""

from __future__ import annotations

import asyncio
import gzip
import sys
import textwrap
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Query, Request
from pydantic import BaseModel, Field
from starlette.staticfiles import StaticFiles

from tutelage.serving import PROBLEM_TYPE, ServiceProblem, create_app
from tutelage_client.errors import InvalidInput


class Body(BaseModel):
    count: Annotated[int, Field(ge=1)]


def small_app(max_body_bytes: int = 100) -> FastAPI:
    app = create_app("test", max_body_bytes=max_body_bytes, body_limits={"/upload": 200})

    @app.post("/things/{number}")
    async def things(number: int, body: Body, limit: Annotated[int, Query(le=5)] = 1) -> dict[str, int]:
        return {"number": number, "count": body.count, "limit": limit}

    @app.post("/upload")
    async def upload(request: Request) -> dict[str, int]:
        return {"bytes": sum([len(chunk) async for chunk in request.stream()])}

    @app.get("/raise/{what}")
    async def raise_it(what: str) -> None:
        errors: dict[str, Exception] = {
            "bug": RuntimeError("secret"),
            "input": InvalidInput("a: is wrong; use b", "a"),
            "problem": ServiceProblem(409, "stale_epoch", "too old", field="epoch", retry_after_s=3),
        }
        raise errors[what]

    return app


def client(app: FastAPI) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://test")


async def test_no_page_loads_scripts_from_elsewhere() -> None:
    async with client(small_app()) as http:
        assert [(await http.get(path)).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404, 404, 200]


@pytest.mark.parametrize(
    ("method", "path", "json", "status", "code", "field", "said"),
    [
        ("GET", "/nowhere", None, 404, "not_found", None, "/nowhere"),
        ("DELETE", "/healthz", None, 405, "method_not_allowed", None, "allowed here: GET"),
        ("POST", "/things/1", {"count": 0}, 422, "invalid_input", "count", "0 is too small; give at least 1"),
        ("POST", "/things/1", None, 422, "invalid_input", None, "the body: it is missing"),
        (
            "POST",
            "/things/x",
            {"count": 1},
            422,
            "invalid_input",
            "number",
            '"x" is no whole number; give one such as 3',
        ),
        ("POST", "/things/1?limit=9", {"count": 1}, 422, "invalid_input", "limit", "5"),
        ("GET", "/raise/input", None, 422, "invalid_input", "a", "use b"),
        ("GET", "/raise/problem", None, 409, "stale_epoch", "epoch", "too old"),
        ("GET", "/raise/bug", None, 500, "internal", None, "log"),
    ],
)
async def test_every_error_is_a_problem_with_code_field_and_sentence(
    method: str, path: str, json: Any, status: int, code: str, field: str | None, said: str
) -> None:
    async with client(small_app()) as http:
        answer = await http.request(method, path, json=json)
    problem = answer.json()
    assert answer.headers["content-type"] == PROBLEM_TYPE
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem.get("field") == field
    assert said in problem["detail"]
    assert "secret" not in answer.text


async def test_json_that_breaks_off_says_where() -> None:
    async with client(small_app()) as http:
        answer = await http.post("/things/1", content=b'{"count": ', headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert "byte" in answer.json()["detail"]


@pytest.mark.parametrize("named", [None, "application/x-www-form-urlencoded", "text/plain"])
async def test_a_body_that_is_not_called_json_is_refused_with_the_header_that_is_missing(named: str | None) -> None:
    headers = {} if named is None else {"content-type": named}
    async with client(small_app()) as http:
        answer = await http.post("/things/1", content=b'{"count": 1}', headers=headers)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["field"]) == (415, "unsupported_media_type", "Content-Type")
    assert (named or "no Content-Type") in problem["detail"]
    assert problem["detail"].endswith("send it with Content-Type: application/json")


@pytest.mark.parametrize("body", [b"[" * 100_000 + b"]" * 100_000, b'{"count": "\xff"}'], ids=["nested", "no UTF-8"])
async def test_json_that_cannot_be_read_is_told_in_a_sentence(body: bytes) -> None:
    async with client(small_app(2**20)) as http:
        answer = await http.post("/things/1", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert answer.json()["detail"].startswith("the body cannot be read: it is no UTF-8, or")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/things/1", "POST"),
        ("PUT", "/shared", "GET, POST, DELETE"),
        ("POST", "/files/a", "GET, HEAD"),
    ],
)
async def test_every_method_of_a_path_is_told_where_another_is_tried(
    method: str, path: str, allowed: str, tmp_path: Path
) -> None:
    app, router = small_app(), APIRouter()
    for each in ("POST", "GET"):
        router.add_api_route("/shared", lambda: None, methods=[each])
    app.include_router(router)
    app.add_api_route("/shared", lambda: None, methods=["DELETE"])
    app.mount("/files", StaticFiles(directory=tmp_path))
    async with client(app) as http:
        answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (405, "method_not_allowed", allowed)
    assert answer.json()["detail"] == f"{method} {path} is not offered; allowed here: {allowed}"


async def test_every_wrong_field_is_in_the_list_of_errors() -> None:
    async with client(small_app()) as http:
        answer = await http.post("/things/x", json={"count": 0})
    assert {error["field"] for error in answer.json()["errors"]} == {"number", "count"}


async def test_a_problem_carries_its_retry_after() -> None:
    async with client(small_app()) as http:
        assert (await http.get("/raise/problem")).headers["retry-after"] == "3"


async def in_chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 10):
        yield b"x" * 10


@pytest.mark.parametrize("make", [lambda n: b"x" * n, in_chunks], ids=["declared", "chunked"])
async def test_a_body_is_limited_by_path_however_it_is_sent(make: Callable[[int], Any]) -> None:
    async with client(small_app()) as http:
        fits = await http.post("/upload", content=make(200))
        large = await http.post("/upload", content=make(210))
        elsewhere = await http.post("/things/1", content=make(110), headers={"content-type": "application/json"})
    assert (fits.status_code, fits.json()) == (200, {"bytes": 200})
    for answer, limit in ((large, "200 bytes"), (elsewhere, "100 bytes")):
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert limit in answer.json()["detail"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br", "gzip, gzip", "nonsense"])
async def test_a_packed_body_is_refused_unread(encoding: str) -> None:
    """So there is nothing that a few bytes could grow into."""
    bomb = gzip.compress(bytes(10_000))
    async with client(small_app()) as http:
        for path in ("/upload", "/things/1"):
            answer = await http.post(path, content=bomb, headers={"content-encoding": encoding})
            problem = answer.json()
            assert (answer.status_code, problem["code"]) == (415, "unsupported_content_encoding")
            assert (problem["field"], answer.headers["accept-encoding"]) == ("Content-Encoding", "identity")
            assert repr(encoding) in problem["detail"]
        plain = await http.post("/upload", content=bomb, headers={"content-encoding": "identity"})
    assert plain.json() == {"bytes": len(bomb)}


async def test_readiness_tells_the_reason_and_health_does_not_depend_on_it() -> None:
    async def not_yet() -> str | None:
        return "the database is away"

    for ready in (lambda: "the database is away", not_yet):
        async with client(create_app("test", ready=ready)) as http:
            answer = await http.get("/readyz")
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert answer.json()["detail"] == "the database is away"
            assert (await http.get("/healthz")).status_code == 200
    async with client(create_app("test")) as http:
        assert (await http.get("/readyz")).json() == {"status": "ready"}


async def test_answers_are_counted_by_route_template() -> None:
    async with client(small_app()) as http:
        await http.post("/things/1", json={"count": 1})
        await http.post("/things/2", json={"count": 1})
        await http.get("/nowhere")
        metrics = (await http.get("/metrics")).text
    assert 'tutelage_http_requests_total{method="POST",route="/things/{number}",status="200"} 2.0' in metrics
    assert 'tutelage_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in metrics


async def test_two_apps_in_one_process_count_apart() -> None:
    async with client(small_app()) as one, client(small_app()) as other:
        await one.get("/healthz")
        assert 'route="/healthz"' not in (await other.get("/metrics")).text


PROCESS = """
    from prometheus_client import Gauge
    from tutelage.serving import create_app, serve
    app = create_app("slow")
    waiting = Gauge("tutelage_slow_open", "Open requests", registry=app.state.registry)
    @app.get("/slow")
    async def slow() -> dict:
        waiting.set(1)
        await app.state.stopping.wait()
        return {"finished": True}
    serve(app, "127.0.0.1", 0)
"""


async def test_a_process_finishes_open_requests_when_it_is_told_to_stop() -> None:
    script = textwrap.dedent(PROCESS)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=PIPE)
    assert process.stdout is not None
    try:
        url = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()[-1]
        async with httpx2.AsyncClient(base_url=url) as http:
            slow = asyncio.create_task(http.get("/slow"))
            async with asyncio.timeout(20):
                while "tutelage_slow_open 1.0" not in (await http.get("/metrics")).text:
                    assert not slow.done()
            process.terminate()
            assert (await asyncio.wait_for(slow, 20)).json() == {"finished": True}
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
