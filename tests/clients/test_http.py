"""The HTTP call site against small ASGI apps: what it repeats, what it raises, what it streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx2
import pytest
from pydantic import BaseModel

from tutelage_client.disk import Chunks
from tutelage_client.errors import InvalidInput, ProblemResponse, ServiceUnreachable, StaleEpoch
from tutelage_client.http import Http, RetryPolicy, retry_after_s

QUICK = RetryPolicy(deadline_s=2.0, first_wait_s=0.001, longest_wait_s=0.002)
Handler = Callable[[httpx2.Request], httpx2.Response]


class Echo(BaseModel):
    value: int


class Script:
    """A transport that answers with the next of `answers`, raising those that are errors; the last one stays."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(handler: Handler, retry: RetryPolicy = QUICK, key: str | None = None) -> Http:
    return Http("http://service", transport=httpx2.MockTransport(handler), retry=retry, key=key)


def problem(status: int, code: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    body = {"title": "t", "status": status, "code": code, "detail": "a sentence", "field": "a.b"}
    return httpx2.Response(status, json=body, headers={"content-type": "application/problem+json", **(headers or {})})


async def test_a_model_goes_out_as_json_and_the_reply_comes_back_as_a_model() -> None:
    script = Script(httpx2.Response(200, json={"value": 7}))
    async with client(script, key="secret") as http:
        assert await http.request_json("POST", "/v1/echo", Echo, Echo(value=3)) == Echo(value=7)
    assert script.requests[0].content == b'{"value":3}'
    assert script.requests[0].headers["content-type"] == "application/json"
    assert script.requests[0].headers["authorization"] == "Bearer secret"


async def test_an_empty_answer_is_read_as_none() -> None:
    async with client(Script(httpx2.Response(204))) as http:
        assert await http.request_json("DELETE", "/v1/thing", type(None)) is None


async def test_a_reply_of_another_shape_is_a_problem_and_not_a_crash() -> None:
    async with client(Script(httpx2.Response(200, json={"other": 1}))) as http:
        with pytest.raises(ProblemResponse) as caught:
            await http.request_json("GET", "/", Echo)
    assert caught.value.code == "bad_reply"


@pytest.mark.parametrize(
    "fault", [httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow"), httpx2.RemoteProtocolError("cut")]
)
@pytest.mark.parametrize(("method", "repeatable"), [("GET", None), ("POST", True)])
async def test_a_safe_request_is_repeated_after_a_broken_connection(
    fault: Exception, method: str, repeatable: bool | None
) -> None:
    script = Script(fault, fault, httpx2.Response(200, json={"value": 1}))
    async with client(script) as http:
        assert (await http.send(method, "/", repeatable=repeatable)).status_code == 200
    assert len(script.requests) == 3


@pytest.mark.parametrize("status", [429, 502, 503])
async def test_a_safe_request_is_repeated_after_a_passing_status(status: int) -> None:
    script = Script(httpx2.Response(status), httpx2.Response(200, content=b"ok"))
    async with client(script) as http:
        assert (await http.send("GET", "/")).content == b"ok"


@pytest.mark.parametrize("status", [400, 404, 422, 500])
async def test_a_lasting_status_is_not_repeated(status: int) -> None:
    script = Script(httpx2.Response(status), httpx2.Response(200))
    async with client(script) as http:
        with pytest.raises(ProblemResponse) as caught:
            await http.send("GET", "/")
    assert (caught.value.status, caught.value.code, len(script.requests)) == (status, f"http_{status}", 1)


@pytest.mark.parametrize("answer", [httpx2.ConnectError("refused"), httpx2.Response(503)])
async def test_a_post_is_sent_once_unless_its_caller_calls_it_repeatable(answer: httpx2.Response | Exception) -> None:
    script = Script(answer)
    async with client(script) as http:
        with pytest.raises((ServiceUnreachable, ProblemResponse)):
            await http.send("POST", "/", b"x")
    assert len(script.requests) == 1


async def test_retry_after_is_waited_for_and_past_the_deadline_the_refusal_is_told_at_once() -> None:
    script = Script(problem(503, "overloaded", {"retry-after": "3600"}))
    async with client(script) as http:
        with pytest.raises(ProblemResponse) as caught:
            await asyncio.wait_for(http.send("GET", "/"), timeout=5)
    assert caught.value.code == "overloaded"
    assert len(script.requests) == 1


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    assert retry_after_s({"retry-after": "7"}) == 7
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < retry_after_s({"retry-after": soon}) <= 100
    assert retry_after_s({"retry-after": "soon"}) == 0
    assert retry_after_s({}) == 0


async def test_no_answer_until_the_deadline_is_service_unreachable_with_the_address() -> None:
    script = Script(httpx2.ConnectError("refused"))
    async with client(script, RetryPolicy(deadline_s=0.02, first_wait_s=0.001, longest_wait_s=0.001)) as http:
        with pytest.raises(ServiceUnreachable, match="http://service/v1/x: refused"):
            await http.send("GET", "/v1/x")
    assert len(script.requests) > 1


async def test_a_problem_keeps_its_code_detail_and_field() -> None:
    async with client(Script(problem(422, "invalid_input"))) as http:
        with pytest.raises(ProblemResponse) as caught:
            await http.send("POST", "/")
    error = caught.value
    assert (error.status, error.code, error.detail, error.field) == (422, "invalid_input", "a sentence", "a.b")


async def test_a_stale_epoch_has_its_own_type() -> None:
    async with client(Script(problem(409, "stale_epoch"))) as http:
        with pytest.raises(StaleEpoch):
            await http.send("POST", "/")


@pytest.mark.parametrize("body", [b"not json", b"[]", b"{}", b"null"])
async def test_a_damaged_problem_is_still_a_problem(body: bytes) -> None:
    answer = httpx2.Response(500, content=body, headers={"content-type": "application/problem+json"})
    async with client(Script(answer)) as http:
        with pytest.raises(ProblemResponse) as caught:
            await http.send("GET", "/")
    assert caught.value.code == "http_500"


def test_an_address_without_a_scheme_is_refused_in_one_sentence() -> None:
    with pytest.raises(InvalidInput, match="not an http"):
        Http("localhost:8000")


class Broken(httpx2.AsyncByteStream):
    """A body that breaks after its chunks."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        raise httpx2.ReadError("cut")


async def test_a_body_that_breaks_on_the_way_is_asked_for_again() -> None:
    script = Script(httpx2.Response(200, stream=Broken(b"ha")), httpx2.Response(200, content=b"whole"))
    async with client(script) as http:
        assert (await http.send("GET", "/")).content == b"whole"


async def test_a_download_comes_in_chunks_and_says_when_it_broke() -> None:
    async with client(Script(httpx2.Response(200, content=b"abc"))) as http:
        assert b"".join([chunk async for chunk in http.download("/file")]) == b"abc"
    got = []
    async with client(Script(httpx2.Response(200, stream=Broken(b"ab")))) as http:
        with pytest.raises(ServiceUnreachable):
            async for chunk in http.download("/file"):
                got.append(chunk)
    assert got == [b"ab"]


async def test_a_download_that_is_refused_raises_the_problem() -> None:
    async with client(Script(problem(404, "file_not_found"))) as http:
        with pytest.raises(ProblemResponse) as caught:
            await anext(http.download("/file"))
    assert caught.value.code == "file_not_found"


async def test_events_go_on_after_the_last_one_when_the_connection_breaks() -> None:
    sse = {"content-type": "text/event-stream"}
    script = Script(
        httpx2.Response(200, headers=sse, stream=Broken(b"id: 1\ndata: a\n\n", b"id: 2\ndata: b\n\n")),
        httpx2.ConnectError("refused"),
        httpx2.Response(200, headers=sse, content=b"id: 3\ndata: c\n\n"),
    )
    async with client(script) as http:
        data = [event.data async for event in http.events("/events", last_id="0")]
    assert data == ["a", "b", "c"]
    assert [request.headers["last-event-id"] for request in script.requests] == ["0", "2", "2"]


async def downloaded(script: Script) -> bytes:
    async with client(script) as http:
        return b"".join([chunk async for chunk in http.download("/file")])


async def test_a_download_goes_on_where_it_broke_as_long_as_the_content_is_the_same() -> None:
    first = httpx2.Response(200, headers={"etag": '"a"'}, stream=Broken(b"ab", b"cd"))
    second = httpx2.Response(206, headers={"etag": '"a"'}, stream=Broken(b"e"))
    script = Script(first, httpx2.Response(503), second, httpx2.Response(206, headers={"etag": '"a"'}, content=b"fg"))
    assert await downloaded(script) == b"abcdefg"
    asked = [(request.headers.get("range"), request.headers.get("if-range")) for request in script.requests]
    assert asked == [(None, None), ("bytes=4-", '"a"'), ("bytes=4-", '"a"'), ("bytes=5-", '"a"')]


async def test_a_download_of_what_changed_meanwhile_or_cannot_be_told_from_it_is_an_error() -> None:
    changed = Script(
        httpx2.Response(200, headers={"etag": '"a"'}, stream=Broken(b"ab")),
        httpx2.Response(200, headers={"etag": '"b"'}, content=b"xyz"),
    )
    with pytest.raises(ServiceUnreachable, match="after 2 bytes it has another content; download it again"):
        await downloaded(changed)
    untagged = Script(httpx2.Response(200, stream=Broken(b"ab")), httpx2.Response(200, content=b"abc"))
    with pytest.raises(ServiceUnreachable, match="cut"):
        await downloaded(untagged)


async def test_an_upload_of_a_file_begins_anew_after_a_cut(tmp_path: Path) -> None:
    source = tmp_path / "data.bin"
    source.write_bytes(bytes(range(256)) * 10_000)
    received: list[bytes] = []

    async def take(request: httpx2.Request) -> httpx2.Response:
        received.append(await request.aread())
        if len(received) == 1:
            raise httpx2.ReadError("cut")
        return httpx2.Response(201)

    async with Http("http://service", transport=httpx2.MockTransport(take), retry=QUICK) as http:
        await http.send("POST", "/v1/files", Chunks(source), repeatable=True)
    assert received == [source.read_bytes()] * 2
