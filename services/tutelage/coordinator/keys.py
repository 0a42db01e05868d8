"""Keys: made by one that has their scopes, kept as digests, revoked for good; and those that are in files."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator import idempotency
from tutelage.coordinator.accounts import account
from tutelage.coordinator.callers import Caller, digest, require
from tutelage.coordinator.db import now, put_new
from tutelage.coordinator.pages import page
from tutelage.coordinator.tables import KeyRow
from tutelage.serving import ServiceProblem
from tutelage_client.client import read_key
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import PROJECT, KeyRequest, KeyView, NewKey, Page, Scope

SHORTEST = 32
# What a key in a file may do, by the flag that names the file.
ROLES: dict[str, frozenset[Scope]] = {
    "admin": frozenset(Scope),
    "trainer": frozenset({Scope.RUNS_LEASE, Scope.FILES_READ, Scope.TEACHERS_READ}),
    "teacher": frozenset({Scope.TEACHERS_WRITE}),
}


def in_files(files: dict[str, Path]) -> dict[str, Caller]:
    """Callers by the digest of the key in each role's file.

    Raises:
        InvalidInput: a file that holds no key, a short one, or that of another role.
    """
    known: dict[str, Caller] = {}
    for role, path in files.items():
        secret = read_key(path)
        if len(secret) < SHORTEST:
            detail = f"the key in {path} has {len(secret)} characters; give at least {SHORTEST} random ones"
            raise InvalidInput(f"{detail}, as `openssl rand -hex 32` makes", f"{role}_key_file")
        if digest(secret) in known:
            raise InvalidInput(f"{path} holds the key of another role; give each its own", f"{role}_key_file")
        known[digest(secret)] = Caller(f"file:{role}", PROJECT, ROLES[role])
    return known


def any_is_there(session: Session) -> bool:
    """Whether somebody could call with a key of the database."""
    query = select(KeyRow.id).where(KeyRow.revoked_at.is_(None))
    return session.scalar(query.where(KeyRow.expires_at.is_(None) | (KeyRow.expires_at > now())).limit(1)) is not None


def refused(session: Session, key_ids: Collection[str]) -> set[str]:
    """Those of the keys that are revoked or have expired. A key of a file is neither."""
    is_over = KeyRow.revoked_at.is_not(None) | (KeyRow.expires_at <= now())
    return set(session.scalars(select(KeyRow.id).where(KeyRow.id.in_(key_ids), is_over)))


def create(session: Session, caller: Caller, asked: KeyRequest, idempotency_key: str | None = None) -> NewKey:
    """A new key with its secret, which is not kept.

    Raises:
        ServiceProblem: 403 `out_of_scope`, for scopes or a project that the caller cannot give; 409 `key_made_before`
            or 422 `idempotency_key_reused`, where the idempotency key has made one.
    """
    project = asked.project or caller.project
    if project != caller.project:
        require(caller, Scope.PROJECTS_ADMIN)
    if lacking := asked.scopes - caller.scopes:
        detail = f"scopes: the key {caller.name} cannot give {', '.join(sorted(lacking))}, which it lacks itself"
        raise ServiceProblem(403, "out_of_scope", detail, field="scopes")
    key_id = secrets.token_hex(6)
    secret = f"tk_{key_id}_{secrets.token_urlsafe(32)}"
    body = asked.model_dump(mode="json") | {"scopes": sorted(asked.scopes)}
    once = idempotency.own(caller.project, idempotency_key)
    is_new = put_new(
        session,
        KeyRow,
        id=f"key-{key_id}",
        name=asked.name,
        project=project,
        sha256=digest(secret),
        scopes=body["scopes"],
        requests_per_s=asked.requests_per_s,
        budget_tokens=asked.budget_tokens,
        budget_usd=asked.budget_usd,
        created_by=caller.name,
        created_at=now(),
        expires_at=None if asked.expires_in_s is None else now() + asked.expires_in_s,
        idempotency_key=once,
        request_sha256=idempotency.digest(body),
    )
    if not is_new:
        raise _made_before(session.scalars(select(KeyRow).where(KeyRow.idempotency_key == once)).one(), body)
    return NewKey(key=_View(session)(_found(session, caller, f"key-{key_id}")), secret=secret)


def _made_before(key: KeyRow, body: dict[str, Any]) -> ServiceProblem:
    """What a repeat is told: the first answer cannot be given again. Raises: ServiceProblem: 422, of another body."""
    idempotency.check_body(body, key.id, key.request_sha256)
    detail = (
        f"this Idempotency-Key made {key.id} ({key.name}) before, whose secret was told that once and is not kept: "
        f"DELETE /v1/keys/{key.id} revokes it, and a new Idempotency-Key makes another one"
    )
    return ServiceProblem(409, "key_made_before", detail, field="Idempotency-Key")


def revoke(session: Session, caller: Caller, key_id: str) -> KeyView:
    """Refuse it from now on; again changes nothing. Raises: ServiceProblem: 404 `key_not_found`."""
    row = _found(session, caller, key_id)
    if row.revoked_at is None:
        row.revoked_at = now()
        session.flush()
        session.refresh(row)
    return _View(session)(row)


def keys(session: Session, caller: Caller, after: str | None, limit: int) -> Page[KeyView]:
    """Those that the caller administers, the newest first."""
    query = select(KeyRow)
    if Scope.PROJECTS_ADMIN not in caller.scopes:
        query = query.where(KeyRow.project == caller.project)
    view = _View(session)
    return page(session, query, (KeyRow.created_at, KeyRow.id), view, after=after, limit=limit, newest_first=True)


def _found(session: Session, caller: Caller, key_id: str) -> KeyRow:
    row = session.get(KeyRow, key_id)
    if row is None or (row.project != caller.project and Scope.PROJECTS_ADMIN not in caller.scopes):
        raise ServiceProblem(404, "key_not_found", f"there is no key {key_id!r}; GET /v1/keys lists them")
    return row


class _View:
    """A row as people see it, with what stands on its account."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, row: KeyRow) -> KeyView:
        told = account(self._session, row.id)._asdict()
        told |= {name: getattr(row, name) for name in KeyView.model_fields if name not in told}
        return KeyView.model_validate(told)
