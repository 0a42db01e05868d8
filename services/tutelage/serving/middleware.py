"""What wraps every request: what a body may be, its trace, and the count and time of answers."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tutelage.serving.problems import METHODS, ServiceProblem
from tutelage.telemetry import HttpMetrics
from tutelage.tracing import Span, span
from tutelage_client.tracing import CONTEXT, received

PROBED = frozenset({"/healthz", "/health", "/readyz", "/metrics"})  # asked all the time, of no trace


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
    """ASGI middleware that does a request's work in the trace that its caller named, as a span of its route.

    Of the address the span holds the template alone: a query may hold anything.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        CONTEXT.set(received(headers.get("traceparent", ""), headers.get("tracestate", "")))
        if scope["path"] in PROBED:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        asked = {"http.request.method": method, "url.scheme": scope.get("scheme", "http")}
        with span(method, asked, "server") as served:
            try:
                await self._app(scope, receive, _watching(send, served))
            finally:
                if (route := _route(scope)) is not None:
                    served.rename(f"{method} {route}")
                    served.tell({"http.route": route} | _of_run(scope))


def _watching(send: Send, served: Span) -> Send:
    """`send`, which the span learns the answer's status from."""

    async def watch(message: Message) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            served.tell({"http.response.status_code": status})
            if status >= 500:
                served.fail(str(status))
        await send(message)

    return watch


def _route(scope: Scope) -> str | None:
    """The template of the path; None where no route matched."""
    return getattr(scope.get("route"), "path", None)


def _of_run(scope: Scope) -> dict[str, str]:
    run_id = scope.get("path_params", {}).get("run_id")
    return {} if run_id is None else {"opd.run_id": run_id}


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
            route = _route(scope) or "unmatched"
            self._metrics.requests.labels(scope["method"], route, status).inc()
            self._metrics.seconds.labels(scope["method"], route).observe(perf_counter() - began)
