"""A whole teacher in this process: the toy engine, the HTTP door without a network, the queue door on any queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray

from tutelage.engines import FakeOptions, Tokenizer
from tutelage.engines.fake import FakeEngine
from tutelage.queue import Queue
from tutelage.teacher.build import build_app
from tutelage.teacher.settings import Settings
from tutelage_client.http import RetryPolicy
from tutelage_client.teacher import TeacherClient
from tutelage_client.wire import (
    Capabilities,
    Completion,
    GenerateRequest,
    Generation,
    Provenance,
    ScoreGroup,
    ScoreRequest,
    Signal,
    TokenScores,
    Usage,
)

POISON = 13  # a token on which the watched engine fails, when told to


class WatchedEngine:
    """The toy engine, with its calls written down and a gate that tests can close."""

    def __init__(self, options: FakeOptions, poison: bool = False, calls_at_once: int = 1) -> None:
        self.calls_at_once = calls_at_once
        self.inner = FakeEngine(options, "toy")
        self._poison = poison
        self.calls: list[int] = []  # completions in each score call after the probe
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.close_at: int | None = None  # the gate closes as this many calls have been made
        self.shows_tokens = True
        self.busy = 0
        self.stopped = 0
        self.closed = False

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    @property
    def provenance(self) -> Provenance:
        return self.inner.provenance

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self.inner.tokenizer if self.shows_tokens else None

    async def connect(self) -> dict[str, Any]:
        return await self.inner.connect()

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
    ) -> tuple[list[TokenScores], Usage]:
        assert self.busy < self.calls_at_once, "more engine calls overlap than it takes"
        self.busy += 1
        try:
            self.calls.append(sum(len(group.completions) for group in groups))
            self.started.set()
            if len(self.calls) == self.close_at:
                self.gate.clear()
            await self.gate.wait()
            if self._poison and any(POISON in c.token_ids for group in groups for c in group.completions):
                raise RuntimeError("secret words of the engine")
            return await self.inner.score(groups, signals, top_k)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        finally:
            self.busy -= 1

    async def generate(self, request: GenerateRequest) -> tuple[list[list[Generation]], Usage]:
        assert self.busy < self.calls_at_once, "more engine calls overlap than it takes"
        return await self.inner.generate(request)

    def head(self) -> dict[str, NDArray[Any]]:
        return self.inner.head()

    async def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class RunningTeacher:
    app: FastAPI
    engine: WatchedEngine
    http: httpx2.AsyncClient
    client: TeacherClient


StartTeacher = Callable[..., AbstractAsyncContextManager[RunningTeacher]]
_NO_REPEATS = RetryPolicy(deadline_s=0.0)


@asynccontextmanager
async def _started(
    options: FakeOptions | None = None,
    *,
    poison: bool = False,
    calls_at_once: int = 1,
    key: str | None = None,
    run_id: str | None = None,
    queue: Queue | None = None,
    **settings: Any,
) -> AsyncGenerator[RunningTeacher]:
    """The probe has been passed, and its calls are forgotten, before the test begins."""
    engine = WatchedEngine(options or FakeOptions(), poison, calls_at_once)
    app = build_app(Settings(name="toy", engine="fake", **settings), engine, queue)
    app.state.url = "http://127.0.0.1"
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as http,
        TeacherClient("http://127.0.0.1", key, transport, _NO_REPEATS, run_id) as client,
    ):
        engine.calls.clear()
        engine.started.clear()
        yield RunningTeacher(app, engine, http, client)


@pytest.fixture
def start_teacher() -> StartTeacher:
    return _started


def _request(*completions: Sequence[int], prompt: Sequence[int] = (1, 2), **asked: Any) -> ScoreRequest:
    """A score request for completions, each after a prompt of its own."""
    groups = tuple(
        ScoreGroup(prompt_ids=np.array(prompt), completions=(Completion(token_ids=np.array(ids)),))
        for ids in completions or ([3, 4, 5],)
    )
    return ScoreRequest(sequences=groups, **asked)


@pytest.fixture
def request_for() -> Callable[..., ScoreRequest]:
    return _request
