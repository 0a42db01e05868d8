"""Who was turned away. Each is answered; the audit tells of a few an hour, so that no flood of them fills the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tutelage.coordinator.audit import enter
from tutelage.coordinator.callers import ANYONE, Refused
from tutelage.coordinator.db import Database
from tutelage.serving import problem
from tutelage_client.wire import Action

MOST_AN_HOUR = 60  # of each key, and of all together that nobody knows
HOUR_S = 3600.0
LONGEST_TARGET = 200
_API = ("/v1", "/internal", "/metrics")
Missing = Callable[[Refused], Response]


class Refusals:
    """Tells the audit of them, and answers them: the API with a problem, a page with another page.

    missing: makes the page of what is not there
    """

    def __init__(self, database: Database, missing: Missing, clock: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._missing = missing
        self._clock = clock
        self._told_s: dict[str | None, deque[float]] = {}

    async def answer(self, request: Request, error: Exception) -> Response:
        """As an exception handler."""
        assert isinstance(error, Refused)
        await self.tell(request, error)
        if request.scope["route"].path.startswith(_API):
            headers = dict(error.headers or {})
            return problem(error.status_code, error.code, error.detail, field=error.field, headers=headers)
        if error.status_code == 404:
            return self._missing(error)
        return RedirectResponse(f"/sign-in?to={quote(request.url.path)}", 303)

    async def tell(self, request: Request, refused: Refused) -> None:
        if refused.by != ANYONE and self._may_tell(None if refused.by is None else refused.by.name):
            await run_in_threadpool(self._record, request, refused)

    def _may_tell(self, caller: str | None) -> bool:
        now_s = self._clock()
        told_s = self._told_s.setdefault(caller, deque(maxlen=MOST_AN_HOUR))
        if len(told_s) == MOST_AN_HOUR and now_s - told_s[0] < HOUR_S:
            return False
        told_s.append(now_s)
        return True

    def _record(self, request: Request, refused: Refused) -> None:
        route = f"{request.method} {request.scope['route'].path}"
        with self._database.write() as session:
            enter(session, refused.by, Action.REFUSED, route, _target(request), refused.status_code)


def _target(request: Request) -> str | None:
    """The ids of the path. A stranger writes them, so they are cut, and without what no id has."""
    named = "/".join(str(value) for value in request.path_params.values())
    return "".join(char for char in named[:LONGEST_TARGET] if char.isprintable()) or None
