"""The one HTTP call site: retries, problems and streams for every client of this project.

A request is repeated only where repeating is safe, after a failed connection or a 429, 502 or 503, until a deadline.
Whatever goes wrong leaves here as one of `tutelage_client.errors`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Self, TypeVar

import httpx2
from pydantic import BaseModel, TypeAdapter, ValidationError

from tutelage_client.errors import InvalidInput, ProblemResponse, ServiceUnreachable, StaleEpoch
from tutelage_client.retrying import Attempts, RetryPolicy
from tutelage_client.tracing import CONTEXT
from tutelage_client.wire.message import read_reply

Reply = TypeVar("Reply")
Content = bytes | AsyncIterable[bytes]
Params = Mapping[str, str | int | float | bool]

SAFE_METHODS = frozenset({"GET", "HEAD"})
REPEATED_STATUSES = frozenset({429, 502, 503})
UNAUTHORIZED, PARTIAL = 401, 206


class Hints(NamedTuple):
    """What helps, for a person who calls from Python: an error carries it as a note, which a traceback shows."""

    unreachable: str = "is it running, and is this its address?"
    unauthorized: str = "give the key of this service to its client, as key=..."


class Http:
    """JSON, bytes and streams over one connection pool to one service.

    key: bearer key; transport: stands in for the network, as `httpx2.ASGITransport` does in tests
    timeout_s: for one answer to begin or go on; `connect_timeout_s`: for one connection
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 5.0,
        retry: RetryPolicy | None = None,
        hints: Hints | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise InvalidInput(f"{base_url!r} is not an http:// or https:// address")
        self.base_url = base_url.rstrip("/")
        self.retry = retry or RetryPolicy()
        self._hints = hints or Hints()
        self._client = httpx2.AsyncClient(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(timeout_s, connect=connect_timeout_s),
            transport=transport,
        )

    async def request_json(
        self,
        method: str,
        path: str,
        reply: type[Reply],
        body: BaseModel | Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Reply:
        """Send `body` as JSON and read the answer as `reply` (a model, `dict`, or `type(None)` for no content).

        options: as in `send`
        Raises: as `send`
        """
        sent = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": "application/json"})
        content = None if body is None else _as_json(body)
        answer = await self.send(method, path, content, headers=sent | dict(headers or {}), **options)
        try:
            return read_reply(reply, answer.content or b"null")
        except ValidationError as error:
            detail = f"{answer.url} answered with something else than was agreed"
            raise ProblemResponse(answer.status_code, "bad_reply", detail) from error

    async def send(
        self, method: str, path: str, content: Content | None = None, *, repeatable: bool | None = None, **options: Any
    ) -> httpx2.Response:
        """Send bytes and read the whole answer. A generator can be sent once only, so never call it repeatable.

        repeatable: may be sent again after no answer; by default GET and HEAD are
        options: `params`, `headers`, `timeout_s`
        Raises:
            ProblemResponse, StaleEpoch: the service refused.
            ServiceUnreachable: it did not answer.
        """
        repeat = method in SAFE_METHODS if repeatable is None else repeatable
        request = self._build(method, path, content, **options)
        answer = await self._attempt(request, Attempts(self.retry if repeat else None), stream=False)
        if not answer.is_success:
            raise self._refusal(answer)
        return answer

    async def download(self, path: str) -> AsyncGenerator[bytes]:
        """The body of a GET in chunks. Where the connection breaks it goes on from there, if the service can do that.

        Raises:
            ServiceUnreachable: it broke, and cannot be gone on with: no answer, no ETag, or meanwhile another content.
        """
        attempts, taken, tag = Attempts(self.retry), 0, None
        while True:
            rest = {"Range": f"bytes={taken}-", "If-Range": tag} if taken and tag else {}
            try:
                async with self._stream(path, headers={"Accept-Encoding": "identity"} | rest) as answer:
                    if taken and answer.status_code != PARTIAL:
                        break
                    tag = answer.headers.get("etag")
                    async for chunk in answer.aiter_bytes():
                        taken, attempts = taken + len(chunk), Attempts(self.retry)
                        yield chunk
            except ServiceUnreachable:
                if (taken and not tag) or not await attempts.again():
                    raise
            else:
                return
        raise ServiceUnreachable(str(answer.url), f"after {taken} bytes it has another content; download it again")

    async def events(
        self, path: str, *, last_id: str | None = None, params: Params | None = None
    ) -> AsyncGenerator[httpx2.ServerSentEvent]:
        """Server-sent events after `last_id`, connecting again where the connection broke.

        Ends when the service ends the stream.
        """
        attempts, ended = Attempts(self.retry), False
        while not ended:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
            try:
                async with self._stream(path, params=params, headers=headers) as answer:
                    async for event in httpx2.EventSource(answer):
                        last_id, attempts = event.id or last_id, Attempts(self.retry)
                        yield event
                ended = True
            except ServiceUnreachable:
                if not await attempts.again():
                    raise

    def _build(
        self,
        method: str,
        path: str,
        content: Content | None = None,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> httpx2.Request:
        timeout = httpx2.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        sent = CONTEXT.get().headers | dict(headers or {})
        return self._client.build_request(method, path, content=content, params=params, headers=sent, timeout=timeout)

    @asynccontextmanager
    async def _stream(self, path: str, **options: Any) -> AsyncGenerator[httpx2.Response]:
        """A good answer to a GET, its body still to be read."""
        answer = await self._attempt(self._build("GET", path, **options), Attempts(self.retry), stream=True)
        try:
            if not answer.is_success:
                await answer.aread()
                raise self._refusal(answer)
            yield answer
        except httpx2.TransportError as error:
            raise self._unreachable(answer.request, error) from error
        finally:
            await answer.aclose()

    async def _attempt(self, request: httpx2.Request, attempts: Attempts, *, stream: bool) -> httpx2.Response:
        while True:
            try:
                answer = await self._client.send(request, stream=stream)
            except httpx2.TransportError as error:
                if not await attempts.again():
                    raise self._unreachable(request, error) from error
                continue
            if answer.status_code in REPEATED_STATUSES and await attempts.again(retry_after_s(answer.headers)):
                await answer.aclose()
                continue
            return answer

    def _refusal(self, answer: httpx2.Response) -> ProblemResponse:
        problem = problem_of(answer)
        if problem.status == UNAUTHORIZED:
            problem.add_note(self._hints.unauthorized)
        return problem

    def _unreachable(self, request: httpx2.Request, error: httpx2.TransportError) -> ServiceUnreachable:
        found = ServiceUnreachable(str(request.url), str(error) or type(error).__name__)
        found.add_note(self._hints.unreachable)
        return found

    async def close(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that a Retry-After header asks to wait, as a number or a date; 0 without one."""
    value = headers.get("retry-after", "")
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def problem_of(answer: httpx2.Response) -> ProblemResponse:
    """The refusal in `answer`; a body that is not problem+json gets the code `http_STATUS`."""
    status = answer.status_code
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return ProblemResponse(status, f"http_{status}", f"{answer.url} answered with status {status}")
    try:
        body = answer.json()
        kind = StaleEpoch if body["code"] == "stale_epoch" else ProblemResponse
        return kind(status, body["code"], body["detail"], body.get("field"))
    except (KeyError, TypeError, ValueError):
        return ProblemResponse(status, f"http_{status}", f"{answer.url} answered with status {status}")


def _as_json(body: BaseModel | Mapping[str, Any]) -> bytes:
    if isinstance(body, BaseModel):
        return body.model_dump_json().encode()
    return TypeAdapter(dict[str, Any]).dump_json(dict(body))
