"""A server that repeats what a real one answered: recorded exchanges, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, RootModel

from tutelage.engines.fakes.toy import error


class Exchange(BaseModel):
    """A request with its JSON body, if any, and the JSON that came back."""

    method: str
    path: str
    body: Any = None
    status: int
    answer: Any

    @property
    def key(self) -> str:
        return _key(self.method, self.path, self.body)


class Recording(RootModel[list[Exchange]]):
    """What was recorded, in the order of time."""


def load_recording(path: Path) -> list[Exchange]:
    return Recording.model_validate_json(path.read_bytes()).root


def save_recording(path: Path, exchanges: Iterable[Exchange]) -> None:
    """One exchange a line, each request once: the same is answered the same."""
    once = {exchange.key: exchange for exchange in exchanges}
    lines = ",\n".join(exchange.model_dump_json() for exchange in once.values())
    path.write_text(f"[\n{lines}\n]\n")


def replay_app(exchanges: Iterable[Exchange]) -> FastAPI:
    """Answers each recorded request with its recorded answer; any other with 501, which is not repeated."""
    answers = {exchange.key: exchange for exchange in exchanges}
    app = FastAPI(title="a recording")

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def replay(request: Request) -> JSONResponse:
        content = await request.body()
        body = json.loads(content) if content else None
        known = answers.get(_key(request.method, request.url.path, body))
        if known is None:
            return error(501, f"{request.method} {request.url.path} was not recorded with this body; record it again")
        return JSONResponse(known.answer, known.status)

    return app


def _key(method: str, path: str, body: Any) -> str:
    return json.dumps([method, path, body], sort_keys=True)
