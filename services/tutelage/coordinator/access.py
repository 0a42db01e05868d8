"""What each route asks of its caller. A route that is not in this table is never served."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute

from tutelage.serving import answers
from tutelage_client.wire import Scope


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
    "POST /v1/files": Scope.FILES_WRITE,
    "GET /v1/files": Scope.FILES_READ,
    "GET /v1/files/{file_id}": Scope.FILES_READ,
    "GET /v1/files/{file_id}/content": Scope.FILES_READ,
    "POST /v1/teachers": Scope.TEACHERS_WRITE,
    "GET /v1/teachers": Scope.TEACHERS_READ,
    "DELETE /v1/teachers/{name}": Scope.TEACHERS_WRITE,
    "POST /v1/keys": Scope.KEYS_ADMIN,
    "GET /v1/keys": Scope.KEYS_ADMIN,
    "DELETE /v1/keys/{key_id}": Scope.KEYS_ADMIN,
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
    "GET /runs/{run_id}/compare": Scope.RUNS_READ,
    "GET /runs/{run_id}/compare/{other_id}": Scope.RUNS_READ,
    "GET /queue": Scope.RUNS_READ,
    "GET /teachers": Scope.TEACHERS_READ,
    "GET /sign-in": Access.PUBLIC,
    "POST /sign-in": Access.PUBLIC,
    "POST /sign-out": Access.PUBLIC,
}


def serve_guarded(app: FastAPI, gate: Callable[..., Any], *routers: APIRouter) -> None:
    """Serve these routes behind the gate.

    Raises:
        LookupError: NEEDS does not say what one of them asks of its caller.
    """
    refusals = answers("unauthorized", "out_of_scope", "rate_limited")
    for router in routers:
        for name in names(router):
            if name not in NEEDS:
                raise LookupError(f"{name} is not in coordinator/access.py; say there which scope it needs")
        app.include_router(router, dependencies=[Depends(gate)], responses=refusals)


def names(router: APIRouter) -> list[str]:
    """Of its routes, as NEEDS has them."""
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    assert len(routes) == len(router.routes), "a route of another kind would be served without a caller"
    return [f"{method} {route.path}" for route in routes for method in sorted(route.methods or ())]
