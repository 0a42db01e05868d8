"""The least that an HTTP service can do: a bare ASGI app that sends the body back, under the same server as ours."""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

Message = MutableMapping[str, Any]


async def echo(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    with socket.socket(proto=socket.IPPROTO_TCP) as sock:  # named, or asyncio leaves Nagle's delay on
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sys.stdout.write(f"listening on http://127.0.0.1:{sock.getsockname()[1]}\n")
        sys.stdout.flush()
        config = uvicorn.Config(echo, log_level="critical", lifespan="off")
        uvicorn.Server(config).run([sock])


if __name__ == "__main__":
    main()
