"""Signing in to the dashboard where the coordinator asks for keys: the key becomes a cookie that no script can read.

The cookie goes with no request of another site, and the gate takes it for a change only where the browser says that a
page of this very origin asks.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tutelage.coordinator.callers import COOKIE, Gate, Refused
from tutelage.coordinator.dashboard.rendering import Show
from tutelage.coordinator.refusals import Refusals


def add_sign_in(api: APIRouter, gate: Gate, refusals: Refusals, show: Show) -> None:
    @api.get("/sign-in")
    def sign_in_page(to: str = "/") -> HTMLResponse:
        return show("sign-in.html", here="", to=_own_page(to), refused=None)

    @api.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        form = parse_qs((await request.body()).decode(errors="replace"))
        secret, to = form.get("key", [""])[0].strip(), _own_page(form.get("to", ["/"])[0])
        try:
            await run_in_threadpool(gate.knows, secret)
        except Refused as refused:
            await refusals.tell(request, refused)
            return show("sign-in.html", refused.status_code, here="", to=to, refused=refused.detail)
        answer = RedirectResponse(to, 303)
        answer.set_cookie(COOKIE, secret, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return answer

    @api.post("/sign-out")
    def sign_out() -> Response:
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer


def _own_page(to: str) -> str:
    """Where to go on: a path here, never another site."""
    return to if to.startswith("/") and not to.startswith(("//", "/\\")) and to.isprintable() else "/"
