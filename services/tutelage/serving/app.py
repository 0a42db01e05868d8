"""The skeleton of every HTTP service: problems, body limits, health and metrics."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

import tutelage
from tutelage.serving.locality import OwnMachine
from tutelage.serving.middleware import GuardBody, Measure, Trace
from tutelage.serving.openapi import EVERYWHERE, DescribedApp, answers, in_bytes
from tutelage.serving.problems import ServiceProblem, add_problem_handlers
from tutelage.telemetry import HttpMetrics

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
Ready = Callable[[], str | Awaitable[str | None] | None]
Exposition = Callable[[Request], Awaitable[bytes]]

MAX_BODY_BYTES = 64 * 2**20


def create_app(
    title: str,
    lifespan: Lifespan | None = None,
    *,
    ready: Ready = lambda: None,
    registry: CollectorRegistry | None = None,
    exposition: Exposition | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    body_limits: Mapping[str, int] | None = None,
    own_machine: bool = False,
) -> FastAPI:
    """An app that answers every error with problem+json and has /healthz, /health, /readyz and /metrics.

    ready: the reason why the service cannot take work, or None; may be async
    exposition: what /metrics answers whom; without it everybody finds what is in the registry
    max_body_bytes: larger bodies are refused with 413; body_limits: other limits by path prefix, as for uploads
    own_machine: serve programs of this machine alone, and no page of another site, as nobody is asked for a key
    `app.state.stopping` is an event that is set when the process was told to stop: long answers end then.
    """
    described = {"title": title, "version": tutelage.__version__, "responses": answers(*EVERYWHERE)}
    # Without the framework's pages of its routes, which load scripts from elsewhere.
    app = DescribedApp(
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # The framework's own spans hold queries, its log records what errors say; `Trace` makes those of this project.
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
        **described,
    )
    app.state.stopping = asyncio.Event()
    app.state.registry = registry or CollectorRegistry()
    app.add_middleware(GuardBody, default=max_body_bytes, by_prefix=body_limits or {})
    if own_machine:
        app.add_middleware(OwnMachine)
    app.add_middleware(Trace)
    app.add_middleware(Measure, metrics=HttpMetrics.of(app.state.registry))
    add_problem_handlers(app)
    _add_health(app, ready, exposition or _everything)
    return app


async def _everything(request: Request) -> bytes:
    return generate_latest(request.app.state.registry)


def _add_health(app: FastAPI, ready: Ready, exposition: Exposition) -> None:
    @app.get("/healthz", tags=["health"])
    @app.get("/health", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], responses=answers("not_ready"))
    async def readyz() -> dict[str, str]:
        """The service can take work; 503 with the reason where it cannot."""
        reason = ready()
        if inspect.isawaitable(reason):
            reason = await reason
        if reason is not None:
            raise ServiceProblem(503, "not_ready", reason, retry_after_s=1)
        return {"status": "ready"}

    @app.get("/metrics", tags=["health"], response_class=Response, responses=in_bytes("text/plain"))
    async def metrics(request: Request) -> Response:
        """Prometheus metrics."""
        return Response(await exposition(request), media_type=CONTENT_TYPE_LATEST)
