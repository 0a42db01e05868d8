"""A service as a process: it says where it listens and stops cleanly."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI


class _Server(uvicorn.Server):
    """Says where it listens, and tells the app before it waits for open connections."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._url: str = app.state.url
        self._stopping: asyncio.Event = app.state.stopping

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            gc.collect()
            gc.freeze()  # what is loaded by now stays, and is not looked through each time that garbage is collected
            sys.stdout.write(f"listening on {self._url}\n")
            sys.stdout.flush()

    async def shutdown(self, sockets: Any = None) -> None:
        self._stopping.set()
        await super().shutdown(sockets)


def serve(app: FastAPI, host: str, port: int, *, grace_s: int = 10) -> None:
    """Serve until SIGTERM or SIGINT, then finish open requests within `grace_s` and return.

    port: 0 takes a free one. `listening on http://HOST:PORT` goes to stdout once requests are accepted; the app's
    lifespan finds that address in `app.state.url`.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_keep_alive=30,  # longer than the client keeps an idle connection: it never sends into a closed one
        timeout_graceful_shutdown=grace_s,
    )
    bound = listening(config)
    app.state.url = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
    server = _Server(config, app)
    for stop in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again when it is done; with this handler the process then returns from here.
        signal.signal(stop, server.handle_exit)
    server.run(sockets=[bound])


def listening(config: uvicorn.Config) -> socket.socket:
    """The bound socket; connections that it accepts send at once.

    uvicorn's socket does not say that it is TCP, so asyncio would leave Nagle's delay on: 40 ms an answer. Connections
    inherit the option from the socket that accepts them.
    """
    bound = config.bind_socket()
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound
