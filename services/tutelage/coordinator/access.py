"""What each route asks of its caller, and what the audit tells of it. One that is in no table is never served."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from enum import StrEnum
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.responses import Response

from tutelage.serving import answers
from tutelage_client.wire import Action, Scope

KEY = HTTPBearer(auto_error=False, description="a key of this coordinator; on loopback none is needed")


class Access(StrEnum):
    """What no key stands for. PUBLIC: nothing is asked; HOLDER: the token of the lease that the run is under."""

    PUBLIC = "public"
    HOLDER = "holder"


NEEDS: dict[str, Scope | Access] = {
    "POST /v1/runs": Scope.RUNS_WRITE,
    "GET /v1/runs": Scope.RUNS_READ,
    "GET /v1/runs/{run_id}": Scope.RUNS_READ,
    "PATCH /v1/runs/{run_id}": Scope.RUNS_WRITE,
    "POST /v1/runs/{run_id}/cancel": Scope.RUNS_WRITE,
    "POST /v1/runs/{run_id}/pause": Scope.RUNS_WRITE,
    "POST /v1/runs/{run_id}/resume": Scope.RUNS_WRITE,
    "POST /v1/runs/{run_id}/fork": Scope.RUNS_WRITE,
    "GET /v1/runs/{run_id}/events": Scope.RUNS_READ,
    "GET /v1/runs/{run_id}/metrics": Scope.RUNS_READ,
    "GET /v1/runs/{run_id}/checkpoints": Scope.RUNS_READ,
    "GET /v1/runs/{run_id}/rollouts": Scope.ROLLOUTS_READ,
    "POST /v1/runs/{run_id}/rollouts": Scope.RUNS_WRITE,
    "GET /v1/runs/{run_id}/rollouts/{rollout_id:path}": Scope.ROLLOUTS_READ,
    "GET /v1/runs/{run_id}/logs": Scope.RUNS_READ,
    "GET /v1/runs/{run_id}/model": Scope.RUNS_READ,
    "GET /v1/runs/{run_id}/learned": Scope.RUNS_READ,
    "GET /v1/runs/{run_id}/dead-letters": Scope.RUNS_READ,
    "POST /v1/runs/{run_id}/dead-letters/{job_id}/replay": Scope.RUNS_WRITE,
    "DELETE /v1/runs/{run_id}/dead-letters/{job_id}": Scope.RUNS_WRITE,
    "POST /v1/gc": Scope.RUNS_WRITE,
    "POST /v1/files": Scope.FILES_WRITE,
    "GET /v1/uploads/{sha256}": Scope.FILES_WRITE,
    "PATCH /v1/uploads/{sha256}": Scope.FILES_WRITE,
    "DELETE /v1/uploads/{sha256}": Scope.FILES_WRITE,
    "GET /v1/files": Scope.FILES_READ,
    "GET /v1/files/{file_id}": Scope.FILES_READ,
    "GET /v1/files/{file_id}/content": Scope.FILES_READ,
    "DELETE /v1/files/{file_id}": Scope.FILES_WRITE,
    "POST /v1/teachers": Scope.TEACHERS_WRITE,
    "GET /v1/teachers": Scope.TEACHERS_READ,
    "DELETE /v1/teachers/{name}": Scope.TEACHERS_WRITE,
    "POST /v1/keys": Scope.KEYS_ADMIN,
    "GET /v1/keys": Scope.KEYS_ADMIN,
    "DELETE /v1/keys/{key_id}": Scope.KEYS_ADMIN,
    "GET /v1/audit": Scope.AUDIT_READ,
    "POST /internal/v1/leases": Scope.RUNS_LEASE,
    "POST /internal/v1/runs/{run_id}/lease": Scope.RUNS_LEASE,
    "POST /internal/v1/runs/{run_id}/heartbeat": Access.HOLDER,
    "POST /internal/v1/runs/{run_id}/outcome": Access.HOLDER,
    "POST /internal/v1/runs/{run_id}/steps": Access.HOLDER,
    "POST /internal/v1/runs/{run_id}/events": Access.HOLDER,
    "POST /internal/v1/runs/{run_id}/checkpoints": Access.HOLDER,
    "GET /internal/v1/runs/{run_id}/pushed": Access.HOLDER,
    "GET /": Scope.RUNS_READ,
    "GET /runs/{run_id}": Scope.RUNS_READ,
    "GET /runs/{run_id}/rollouts": Scope.ROLLOUTS_READ,
    "GET /runs/{run_id}/rollouts/{rollout_id:path}": Scope.ROLLOUTS_READ,
    "GET /runs/{run_id}/likely/{rollout_id:path}": Scope.ROLLOUTS_READ,
    "GET /runs/{run_id}/compare": Scope.RUNS_READ,
    "GET /runs/{run_id}/compare/{other_id}": Scope.RUNS_READ,
    "GET /queue": Scope.RUNS_READ,
    "GET /teachers": Scope.TEACHERS_READ,
    "GET /audit": Scope.AUDIT_READ,
    "GET /sign-in": Access.PUBLIC,
    "POST /sign-in": Access.PUBLIC,
    "POST /sign-out": Access.PUBLIC,
}


# Of each route that changes something, as what the audit tells of it. None: it tells nothing, as the route changes no
# row (a browser's cookie), or is what a trainer reports many times a minute, which the run's own history holds.
ACTIONS: dict[str, Action | None] = {
    "POST /v1/runs": Action.RUN_SUBMIT,
    "PATCH /v1/runs/{run_id}": Action.RUN_CHANGE,
    "POST /v1/runs/{run_id}/cancel": Action.RUN_CANCEL,
    "POST /v1/runs/{run_id}/pause": Action.RUN_PAUSE,
    "POST /v1/runs/{run_id}/resume": Action.RUN_RESUME,
    "POST /v1/runs/{run_id}/fork": Action.RUN_FORK,
    "POST /v1/runs/{run_id}/rollouts": Action.RUN_PUSH,
    "POST /v1/runs/{run_id}/dead-letters/{job_id}/replay": Action.LETTER_REPLAY,
    "DELETE /v1/runs/{run_id}/dead-letters/{job_id}": Action.LETTER_DISCARD,
    "POST /v1/gc": Action.ROLLOUTS_FORGET,
    "POST /v1/files": Action.FILE_UPLOAD,
    "PATCH /v1/uploads/{sha256}": Action.FILE_UPLOAD,
    "DELETE /v1/uploads/{sha256}": Action.FILE_DELETE,
    "DELETE /v1/files/{file_id}": Action.FILE_DELETE,
    "POST /v1/teachers": Action.TEACHER_REGISTER,
    "DELETE /v1/teachers/{name}": Action.TEACHER_REMOVE,
    "POST /v1/keys": Action.KEY_CREATE,
    "DELETE /v1/keys/{key_id}": Action.KEY_REVOKE,
    "POST /internal/v1/leases": Action.RUN_LEASE,
    "POST /internal/v1/runs/{run_id}/lease": Action.RUN_LEASE,
    "POST /internal/v1/runs/{run_id}/outcome": Action.RUN_END,
    "POST /internal/v1/runs/{run_id}/heartbeat": None,
    "POST /internal/v1/runs/{run_id}/steps": None,
    "POST /internal/v1/runs/{run_id}/events": None,
    "POST /internal/v1/runs/{run_id}/checkpoints": None,
    "POST /sign-in": None,
    "POST /sign-out": None,
}


class Guarded(APIRoute):
    """A route that reads nothing of a request before the gate has let it in."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            await request.app.state.gate(request)
            return await answer(request)

        return guarded


def serve_guarded(app: FastAPI, gate: Callable[[Request], Awaitable[None]], *routers: APIRouter) -> None:
    """Serve these routes behind the gate.

    Raises:
        LookupError: one of them is not Guarded, or NEEDS does not say what it asks of its caller.
    """
    app.state.gate = gate
    refusals = answers("unauthorized", "out_of_scope", "rate_limited")
    for router in routers:
        routes = [route for route in router.routes if isinstance(route, Guarded)]
        if len(routes) < len(router.routes):
            raise LookupError("a route would be served to anybody; make its router with route_class=Guarded")
        for name in (name for route in routes for name in names(route)):
            if name not in NEEDS:
                raise LookupError(f"{name} is not in NEEDS of coordinator/access.py; say there which scope it needs")
        app.include_router(router, dependencies=[Security(KEY)], responses=refusals)


def names(route: APIRoute) -> list[str]:
    """As the tables have it, one a method."""
    return [f"{method} {route.path}" for method in sorted(route.methods or ())]
