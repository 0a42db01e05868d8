"""Who asks: a key, the holder of a lease, or on a machine's own address anybody."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator import runs
from tutelage.coordinator.access import KEY, NEEDS, Access
from tutelage.coordinator.db import Database, now
from tutelage.coordinator.tables import KeyRow, RunRow
from tutelage.serving import ServiceProblem
from tutelage.serving.rates import Pace, RateLimited
from tutelage_client.wire import PROJECT, Scope

COOKIE = "tutelage_key"  # of a browser that has signed in


@dataclass(frozen=True, slots=True)
class Caller:
    """name: of the key or lease; project: what it sees, and where what it makes belongs

    owner: the key's name for people; requests_per_s: None is no limit
    """

    name: str
    project: str
    scopes: frozenset[Scope]
    requests_per_s: float | None = None
    owner: str | None = None


ANYONE = Caller("anyone", PROJECT, frozenset(Scope))


def digest(secret: str) -> str:
    """What is kept of a key or a token: both are 256 random bits, so a fast hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Refused(ServiceProblem):
    """Somebody may not do this. by: who, as far as that is known: the audit tells of it."""

    def __init__(self, *args: Any, by: Caller | None, **named: Any) -> None:
        super().__init__(*args, **named)
        self.by = by


class Gate:
    """Lets in who may, before anything of the request is read, and tells the route who it is.

    known: callers by the digest of a key that is in a file, beside those in the database
    asks: whether anybody is asked for a key
    """

    def __init__(self, database: Database, known: Mapping[str, Caller], *, asks: bool) -> None:
        self._database = database
        self._known = known
        self.asks = asks
        self._paces: dict[tuple[str, float], Pace] = {}

    async def __call__(self, request: Request) -> None:
        """Raises: ServiceProblem: 429 `rate_limited`; Refused: 401, 403 or 404; ServiceProblem: 409 `stale_epoch`."""
        need = NEEDS[f"{request.method} {request.scope['route'].path}"]
        if need is Access.PUBLIC:
            return
        told = await KEY(request)
        secret = told.credentials if told else None
        if secret is None and (request.method == "GET" or request.headers.get("sec-fetch-site") == "same-origin"):
            secret = request.cookies.get(COOKIE)  # a page of another site changes nothing by it
        run_ids = [request.path_params[name] for name in ("run_id", "other_id") if name in request.path_params]
        caller = await run_in_threadpool(self._let_in, need, secret, run_ids, request.method)
        self._keep_pace(caller)
        request.state.caller = caller

    async def opens(self, request: Request, scope: Scope) -> bool:
        """Whether a route that is open to all tells more to this one: False where a key is asked for and none is sent.

        Raises:
            Refused: 401, 403, for a key that is sent and does not open it; ServiceProblem: 429 `rate_limited`.
        """
        told = await KEY(request)
        if self.asks and told is None:
            return False
        secret = told.credentials if told else None
        self._keep_pace(await run_in_threadpool(self._let_in, scope, secret, [], request.method))
        return True

    def _keep_pace(self, caller: Caller) -> None:
        """Raises: ServiceProblem: 429 `rate_limited`."""
        rate = caller.requests_per_s
        if rate is None:
            return
        pace = self._paces.setdefault((caller.name, rate), Pace(f"the key {caller.name}", rate, None))
        try:
            pace.take(tokens=0)
        except RateLimited as error:
            quota, left = max(1, int(rate)), error.retry_after_s
            window_s = math.ceil(quota / rate)
            limit = {"RateLimit-Policy": f'"key";q={quota};w={window_s}', "RateLimit": f'"key";r=0;t={left}'}
            raise ServiceProblem(429, "rate_limited", str(error), retry_after_s=left, headers=limit) from error

    def knows(self, secret: str) -> Caller:
        """Whose key it is. Raises: Refused: 401."""
        with self._database.read() as session:
            return self._holder(session, secret)

    def _let_in(self, need: Scope | Access, secret: str | None, run_ids: Sequence[str], method: str) -> Caller:
        with self._database.read() as session:
            if need is Access.HOLDER and self.asks:
                return _holder_of_lease(session, secret, run_ids[0], reads=method == "GET")
            caller = self._holder(session, secret) if self.asks else ANYONE
            if isinstance(need, Scope):
                require(caller, need)
            for run_id in run_ids:
                _require_own(session, caller, run_id)
            return caller

    def _holder(self, session: Session, secret: str | None) -> Caller:
        if secret is None:
            raise _unauthorized("this coordinator needs a key; send it as 'Authorization: Bearer KEY'")
        sha256 = digest(secret)
        if sha256 in self._known:
            return self._known[sha256]
        found = session.execute(select(KeyRow, KeyRow.expires_at <= now()).where(KeyRow.sha256 == sha256)).first()
        if found is None:
            raise _unauthorized("this coordinator does not know the key; ask whoever runs it for one")
        key, is_over = found
        if key.revoked_at is not None or is_over:
            how = "has expired" if key.revoked_at is None else "was revoked"
            detail = f"the key {key.id} ({key.name}) {how}; ask whoever runs this coordinator for a new one"
            raise _unauthorized(detail, by=_caller(key))
        return _caller(key)


def _caller(key: KeyRow) -> Caller:
    return Caller(key.id, key.project, frozenset(map(Scope, key.scopes)), key.requests_per_s, key.name)


def require(caller: Caller, scope: Scope) -> None:
    """Raises: Refused: 403 `out_of_scope`."""
    if scope not in caller.scopes:
        has = ", ".join(sorted(caller.scopes))
        raise Refused(403, "out_of_scope", f"the key {caller.name} lacks the scope {scope}; it has {has}", by=caller)


def _require_own(session: Session, caller: Caller, run_id: str) -> None:
    """Another project's run is not there, for whoever asks."""
    project = session.scalar(select(RunRow.project).where(RunRow.id == run_id))
    if project != caller.project:
        missing = runs.not_found(run_id)
        raise Refused(missing.status_code, missing.code, missing.detail, by=caller)


def _holder_of_lease(session: Session, secret: str | None, run_id: str, *, reads: bool) -> Caller:
    """The attempt whose token it is. What it writes is held to its epoch by `leases.owned`; what it reads, here."""
    if secret is None:
        raise _unauthorized("this needs the token of the run's lease; send it as 'Authorization: Bearer TOKEN'")
    run = session.scalar(select(RunRow).where(RunRow.id == run_id, RunRow.lease_token_sha256 == digest(secret)))
    if run is None or (reads and run.lease_expires_at is None):
        detail = f"this is not the token of the lease that {run_id} is under; a newer attempt may own it: stop writing"
        raise ServiceProblem(409, "stale_epoch", detail)
    return Caller(f"{run_id}@{run.epoch}", run.project, frozenset())


def _unauthorized(detail: str, by: Caller | None = None) -> Refused:
    return Refused(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"}, by=by)


async def caller_of(request: Request) -> Caller:  # async, or FastAPI asks a thread
    """Who sent this request, as the gate found."""
    return request.state.caller


CallerOf = Annotated[Caller, Depends(caller_of)]
