"""A route without the framework's way to it, for where that takes longer than the work."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send


class DirectRoute(APIRoute):
    """A route of the app itself that is handed its request as it came and gives the whole answer.

    Nothing is read, checked or asked for by its signature, dependencies of the route included. What it declares is for
    OpenAPI; what it raises is answered as everywhere.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
