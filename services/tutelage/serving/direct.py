"""A route without the framework's way to it, for where that takes longer than the work."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class DirectRoute(APIRoute):
    """A route of the app itself that is handed its request as it came and gives the whole answer.

    Nothing is read, checked or asked for by its signature, dependencies of the route included. What it declares is for
    OpenAPI; what it raises is answered as everywhere.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint
