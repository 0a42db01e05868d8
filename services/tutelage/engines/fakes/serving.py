"""An app on a loopback port, in this process and event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncGenerator[str]:
    """The address of `app` while it is served."""
    with socket.socket(proto=socket.IPPROTO_TCP) as sock:  # named, or asyncio leaves Nagle's delay on
        sock.bind(("127.0.0.1", 0))
        sock.listen()  # so that who connects before the server is up waits
        server = _Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
        serving = asyncio.create_task(server.serve([sock]))
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """A server that leaves the signals to the process it runs in."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
