"""Keys of a coordinator: what one may do, and what is known of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from tutelage_client.wire.forms import NAME
from tutelage_client.wire.message import Message

PROJECT = "default"  # of whoever needs no key
LONGEST_LIFE_S = 10 * 366 * 86_400


class Scope(StrEnum):
    """What a key may be used for, within its project."""

    RUNS_READ = "runs:read"
    RUNS_WRITE = "runs:write"
    RUNS_LEASE = "runs:lease"
    ROLLOUTS_READ = "rollouts:read"
    FILES_READ = "files:read"
    FILES_WRITE = "files:write"
    TEACHERS_READ = "teachers:read"
    TEACHERS_WRITE = "teachers:write"
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"
    KEYS_ADMIN = "keys:admin"
    PROJECTS_ADMIN = "projects:admin"


class KeyRequest(Message):
    """A key to be made. It can be given no more than the key that asks for it has."""

    name: str = Field(pattern=NAME, description="for people: whose key it is")
    scopes: frozenset[Scope] = Field(min_length=1, description="what it may be used for")
    project: str | None = Field(
        default=None,
        pattern=NAME,
        description="what it belongs to; that of the key that asks unless this one has projects:admin",
    )
    expires_in_s: float | None = Field(
        default=None, gt=0, le=LONGEST_LIFE_S, description="seconds until it is refused; null: never"
    )
    requests_per_s: float | None = Field(
        default=None, gt=0, le=1e6, description="requests a second at one coordinator; null: not limited"
    )
    budget_tokens: int | None = Field(
        default=None,
        ge=1,
        le=10**15,
        description="tokens of teachers that its runs may take in all, ever; null: not limited",
    )
    budget_usd: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="dollars that its runs may cost in all, ever, by the prices of the teachers; null: not limited",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if Scope.KEYS_ADMIN in self.scopes:
            for name in ("budget_tokens", "budget_usd"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name}: a key with keys:admin could make others without one; leave one of both out"
                    )
        return self


class KeyView(Message):
    """A key as others see it: everything but its secret."""

    id: str = Field(description="names it in sentences and where it is revoked")
    name: str = Field(description="whose it is")
    project: str = Field(description="what it belongs to")
    scopes: list[Scope] = Field(description="what it may be used for")
    requests_per_s: float | None = Field(description="requests a second at one coordinator; null: not limited")
    budget_tokens: int | None = Field(description="tokens of teachers that its runs may take in all; null: not limited")
    budget_usd: float | None = Field(description="dollars that its runs may cost in all; null: not limited")
    spent_tokens: int = Field(description="by its runs that have ended")
    reserved_tokens: int = Field(description="the most that those of its runs may take which have not ended")
    spent_usd: float = Field(description="by its runs that have ended, by the prices of the teachers")
    reserved_usd: float = Field(description="the most that those of its runs may cost which have not ended")
    created_at: datetime = Field(description="when it was made")
    created_by: str = Field(description="the key that asked for it")
    expires_at: datetime | None = Field(description="when it is refused; null: never")
    revoked_at: datetime | None = Field(description="since when it is refused; null: it is not revoked")


class NewKey(Message):
    """A key that was just made."""

    key: KeyView = Field(description="what is kept of it")
    secret: str = Field(description="what `Authorization: Bearer` carries; it is told here and never again")
