"""A teacher whose model somebody else hosts: the host is in this process, and refuses work while it is told to."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from cluster import Cluster
from fastapi import Request
from fastapi.responses import JSONResponse
from tiny_run import PROMPTS, VOCABULARY

from tutelage.engines import FakeOptions
from tutelage.engines.fakes import APPS, ToyServer, listening
from tutelage.standalone.children import Child

NAME = "hosted"
RETRY_AFTER_S = 1


class Host:
    """An OpenAI-compatible API. refusing_with: the status of every answer, None: it works; refused: calls so far"""

    def __init__(self) -> None:
        self.app = APPS["openai"](ToyServer(FakeOptions(vocabulary_size=VOCABULARY), name=NAME))
        self.app.middleware("http")(self._answer)
        self.refusing_with: int | None = None
        self.refused = 0

    async def _answer(self, request: Request, call_next: Any) -> Any:
        if self.refusing_with is None:
            return await call_next(request)
        self.refused += 1
        told = {"error": {"message": "rate limit"}}
        return JSONResponse(told, self.refusing_with, headers={"Retry-After": str(RETRY_AFTER_S)})


@dataclass(frozen=True)
class Hosted:
    host: Host
    teacher: Child


@asynccontextmanager
async def hosted_teacher(cluster: Cluster) -> AsyncGenerator[Hosted]:
    """The last line of every run that is submitted from now on is asked of it."""
    host = Host()
    async with listening(host.app) as url:
        model = str(cluster.folder / "student")
        teacher = cluster.serving(NAME, "--engine", "openai", "--upstream", url, "--model", model)
        await teacher.start()
        try:
            await cluster.registered(NAME)
            data = cluster.folder / "tagged.jsonl"
            lines = [{"prompt": prompt} for prompt in PROMPTS[:-1]] + [{"prompt": PROMPTS[-1], "tag": NAME}]
            data.write_text("".join(json.dumps(line) + "\n" for line in lines))
            teachers = [*cluster.spec["teachers"], {"name": NAME, "tags": [NAME]}]
            cluster.spec |= {"teachers": teachers, "data": {"train": str(data)}}
            yield Hosted(host, teacher)
        finally:
            await teacher.stop(grace_s=5)
