"""A coordinator behind keys: the keys in its files, and clients that send one."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from fastapi import FastAPI

from tutelage.coordinator.keys import ROLES
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import KeyRequest, Scope

URL = "http://127.0.0.1"
FILES = {role: secrets.token_hex(32) for role in ROLES}


@asynccontextmanager
async def as_key(app: FastAPI, secret: str | None) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=URL, headers=headers) as client:
        yield client


async def made(admin: CoordinatorClient, *scopes: Scope, project: str = "other") -> str:
    return (await admin.create_key(KeyRequest(name="k", scopes=frozenset(scopes), project=project))).secret
