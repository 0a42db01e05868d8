"""Claim check: small bodies travel inside the record that names them, larger ones under a key of their own.

A reference is `inline:<sha256>:<body>` or `blob:<sha256>`; the blob's key is `tutelage:blob:<sha256>`. Both carry the
checksum and both are verified when they are opened: a server that lost or garbled bytes (an overwritten byte inside
an append-only file loads without a word) yields `DamagedBody`, never a wrong payload.
"""

from __future__ import annotations

import hashlib

from tutelage.queue.base import QueueLimits
from tutelage.queue.server import Server
from tutelage_client.errors import TutelageError


class DamagedBody(TutelageError):
    """A stored body that is gone, garbled or of another schema."""


class Blobs:
    """Bodies on one server, kept for `answer_ttl_s` after they were last stored or opened."""

    def __init__(self, server: Server, limits: QueueLimits) -> None:
        self._server = server
        self._limits = limits

    async def store(self, body: bytes) -> bytes:
        """A reference to `body`; a body above `inline_bytes` is on the server when this returns."""
        sha256 = hashlib.sha256(body).hexdigest()
        if len(body) <= self._limits.inline_bytes:
            return f"inline:{sha256}:".encode() + body
        await self._server.set(_key(sha256), body, self._limits.answer_ttl_s)
        return f"blob:{sha256}".encode()

    async def open(self, reference: bytes) -> bytes:
        """The body behind a reference.

        Raises:
            DamagedBody: it is gone, or its checksum does not fit.
        """
        kind, _, rest = reference.partition(b":")
        if kind == b"inline":
            sha256, _, body = rest.partition(b":")
            return _verified(sha256.decode(errors="replace"), body)
        if kind != b"blob":
            raise DamagedBody(f"a stored reference starts with {kind[:16]!r}, expected inline or blob")
        sha256 = rest.decode(errors="replace")
        body = await self._server.get(_key(sha256), self._limits.answer_ttl_s)
        if body is None:
            raise DamagedBody(f"blob {sha256} is gone")
        return _verified(sha256, body)


def _key(sha256: str) -> str:
    return f"tutelage:blob:{sha256}"


def _verified(sha256: str, body: bytes) -> bytes:
    found = hashlib.sha256(body).hexdigest()
    if found != sha256:
        raise DamagedBody(f"a stored body has sha256 {found}, expected {sha256}")
    return body
