"""Keys: made, listed and revoked."""

from __future__ import annotations

from fastapi import APIRouter

from tutelage.coordinator import keys
from tutelage.coordinator.access import Guarded
from tutelage.coordinator.audit import DeedOf
from tutelage.coordinator.callers import CallerOf
from tutelage.coordinator.db import Database
from tutelage.coordinator.routes.params import After, IdempotencyKey, Limit
from tutelage.serving import answers
from tutelage_client.wire import KeyRequest, KeyView, NewKey, Page


def router(database: Database) -> APIRouter:
    api = APIRouter(route_class=Guarded, prefix="/v1/keys", tags=["keys"], responses=answers("database_unavailable"))

    @api.post("", status_code=201, responses=answers("key_made_before", "idempotency_key_reused"))
    def create_key(body: KeyRequest, deed: DeedOf, idempotency_key: IdempotencyKey = None) -> NewKey:
        """A new key, whose secret is told this once. It can do no more than the key that asks.

        With an Idempotency-Key the same request again makes none, and is told which key was made (409).
        """
        with database.write() as session:
            new = keys.create(session, deed.by, body, idempotency_key)
            deed.tell(session, new.key.id)
            return new

    @api.get("")
    def list_keys(caller: CallerOf, after: After = None, limit: Limit = 50) -> Page[KeyView]:
        """The keys of the project, of every project with projects:admin, the newest first; revoked ones stay."""
        with database.read() as session:
            return keys.keys(session, caller, after, limit)

    @api.delete("/{key_id}", responses=answers("key_not_found"))
    def revoke_key(key_id: str, deed: DeedOf) -> KeyView:
        """Refuse the key from now on, for good."""
        with database.write() as session:
            deed.tell(session, key_id)
            return keys.revoke(session, deed.by, key_id)

    return api
