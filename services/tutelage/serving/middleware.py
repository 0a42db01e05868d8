"""What wraps every request: the body limit, and the count and time of answers."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tutelage.serving.problems import ServiceProblem
from tutelage.telemetry import HttpMetrics


class LimitBody:
    """ASGI middleware that refuses a body over its limit, by its declared length or as it arrives."""

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
        declared = Headers(scope=scope).get("content-length", "0")
        arrived = 0

        async def count() -> Message:
            nonlocal arrived
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
