"""What wraps every request: what a body may be, and the count and time of answers."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tutelage.serving.problems import ServiceProblem
from tutelage.telemetry import HttpMetrics
from tutelage_client.tracing import HEADER, TRACEPARENT


class GuardBody:
    """ASGI middleware that refuses a body over its limit, by its declared length or as it arrives, and a packed one."""

    def __init__(self, app: ASGIApp, default: int, by_prefix: Mapping[str, int]) -> None:
        self._app = app
        self._default = default
        self._by_prefix = by_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits = (limit for prefix, limit in self._by_prefix.items() if scope["path"].startswith(prefix))
        limit = next(limits, self._default)
        headers = Headers(scope=scope)
        declared, packed = headers.get("content-length", "0"), headers.get("content-encoding", "identity")
        arrived = 0

        async def count() -> Message:
            nonlocal arrived
            if packed.strip().lower() != "identity":
                raise _packed(packed)
            if declared.isdigit() and int(declared) > limit:
                raise _too_large(limit)
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, count, send)


def _too_large(limit: int) -> ServiceProblem:
    return ServiceProblem(413, "too_large", f"the body is larger than {limit} bytes, the limit here; send it in parts")


def _packed(encoding: str) -> ServiceProblem:
    detail = f"Content-Encoding is {encoding!r}, but a body travels as it is here; send it plain, without that header"
    return ServiceProblem(
        415, "unsupported_content_encoding", detail, field="Content-Encoding", headers={"Accept-Encoding": "identity"}
    )


class Trace:
    """ASGI middleware that does a request's work in the trace that its caller named."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            TRACEPARENT.set(Headers(scope=scope).get(HEADER, ""))
        await self._app(scope, receive, send)


class Measure:
    """ASGI middleware that counts and times answers by route template."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.requests.labels(scope["method"], route, status).inc()
            self._metrics.seconds.labels(scope["method"], route).observe(perf_counter() - began)
