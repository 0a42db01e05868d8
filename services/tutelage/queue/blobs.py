"""Claim check: small bodies travel inside the record that names them, larger ones under a key of their own.

A reference is `inline:<sha256>:<body>` or `blob:<sha256>`; the blob's key is `tutelage:blob:<sha256>`. Both carry the
checksum and both are verified when they are opened: a server that lost or garbled bytes (an overwritten byte inside
an append-only file loads without a word) yields `DamagedBody`, never a wrong payload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tutelage.queue.base import QueueLimits
from tutelage.queue.server import Server
from tutelage_client.errors import TutelageError


class DamagedBody(TutelageError):
    """A stored body that is gone, garbled or of another schema."""


class Blobs:
    """Bodies on one server, kept for `answer_ttl_s` after the record that names them last changed."""

    def __init__(self, server: Server, limits: QueueLimits) -> None:
        self._server = server
        self._limits = limits

    async def store(self, bodies: Sequence[bytes]) -> list[bytes]:
        """A reference to each body; those above `inline_bytes` are on the server when this returns."""
        references: list[bytes] = []
        large: dict[str, bytes] = {}
        for body in bodies:
            sha256 = hashlib.sha256(body).hexdigest()
            if len(body) <= self._limits.inline_bytes:
                references.append(f"inline:{sha256}:".encode() + body)
            else:
                references.append(f"blob:{sha256}".encode())
                large[_key(sha256)] = body
        if large:
            await self._server.set(large, self._limits.answer_ttl_s)
        return references

    async def open(self, references: Sequence[bytes]) -> list[bytes | DamagedBody]:
        """The body behind each reference, or what is wrong with it: one damaged body does not hide the others."""
        keys = [_key(_sha256(reference)) for reference in references if reference.startswith(b"blob:")]
        found = dict(zip(keys, await self._server.get(keys), strict=True)) if keys else {}
        return [_opened(reference, found) for reference in references]


def sound(body: bytes | DamagedBody) -> bytes:
    """The body itself.

    Raises:
        DamagedBody: there is none.
    """
    if isinstance(body, DamagedBody):
        raise body
    return body


def _opened(reference: bytes, found: dict[str, bytes | None]) -> bytes | DamagedBody:
    kind, _, rest = reference.partition(b":")
    if kind == b"inline":
        sha256, _, body = rest.partition(b":")
        return _verified(sha256.decode(errors="replace"), body)
    if kind != b"blob":
        return DamagedBody(f"a stored reference starts with {kind[:16]!r}, expected inline or blob")
    sha256 = _sha256(reference)
    stored = found[_key(sha256)]
    return DamagedBody(f"blob {sha256} is gone") if stored is None else _verified(sha256, stored)


def _sha256(reference: bytes) -> str:
    return reference.removeprefix(b"blob:").decode(errors="replace")


def _key(sha256: str) -> str:
    return f"tutelage:blob:{sha256}"


def _verified(sha256: str, body: bytes) -> bytes | DamagedBody:
    found = hashlib.sha256(body).hexdigest()
    return body if found == sha256 else DamagedBody(f"a stored body has sha256 {found}, expected {sha256}")
