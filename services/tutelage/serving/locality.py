"""A service that asks for no key serves programs of its own machine: to a web page it would be as open as to them."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tutelage.serving.problems import problem

READS = frozenset({"GET", "HEAD"})
HOST = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<name>[^\[\]:@/]+))(?::\d+)?")


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class OwnMachine:
    """ASGI middleware that lets in who calls this machine by a name of its own and is no page of another site.

    A page whose name was made to lead here (DNS rebinding) tells that name as Host; a page elsewhere that sends a form
    or a script's request tells itself as Origin. Programs tell no Origin.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sentence = _why_not(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        if sentence is None:
            await self._app(scope, receive, send)
        else:
            await problem(403, "foreign_request", sentence)(scope, receive, send)


def _why_not(method: str, headers: Headers) -> str | None:
    host = headers.get("host", "")
    if not _is_own(host):
        return (
            f"this service asks for no key, so it is called by localhost or a loopback address, not by {host!r}; "
            "call it so, or start it with keys"
        )
    if method not in READS and _from_elsewhere(host, headers):
        return (
            "this service asks for no key, so pages of other sites change nothing here; send the request from a "
            "program, or start the service with keys"
        )
    return None


def _is_own(host: str) -> bool:
    parts = HOST.fullmatch(host)
    return parts is not None and is_loopback(parts["v6"] or parts["name"].lower())


def _from_elsewhere(host: str, headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return True
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
