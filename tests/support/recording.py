"""Between an engine and a server: passes everything on, and keeps it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from fastapi import FastAPI, Request, Response

from tutelage.engines.fakes import listening
from tutelage.engines.fakes.replay import Exchange, save_recording


@asynccontextmanager
async def recorded(upstream: str, path: Path) -> AsyncGenerator[str]:
    """An address for the server at `upstream`; what went through it is written to `path` at the end."""
    kept: list[Exchange] = []
    async with listening(recording_app(upstream, kept)) as url:
        yield url
    save_recording(path, kept)


def recording_app(upstream: str, kept: list[Exchange]) -> FastAPI:
    """The server at `upstream`, with every exchange of JSON appended to `kept`."""
    app = FastAPI(title="a recorder")
    client = httpx2.AsyncClient(base_url=upstream, timeout=60.0)

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def pass_on(request: Request) -> Response:
        content = await request.body()
        headers = {"Content-Type": "application/json"} if content else {}
        answer = await client.request(request.method, request.url.path, content=content, headers=headers)
        kept.append(
            Exchange(
                method=request.method,
                path=request.url.path,
                body=json.loads(content) if content else None,
                status=answer.status_code,
                answer=json.loads(answer.content),
            )
        )
        return Response(answer.content, answer.status_code, media_type="application/json")

    return app
