"""Bearer keys of a standalone teacher: it knows their sha256 only."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from fastapi import Request

from tutelage.serving import ServiceProblem
from tutelage_client.errors import InvalidInput


def read_keys(path: Path) -> list[str]:
    """The digests in a file of one sha256 in hex a line; empty lines and `#` comments are skipped.

    Raises:
        InvalidInput: not readable, a line that is no digest, or no digest at all.
    """
    try:
        lines = [line.partition("#")[0].strip().lower() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the keys file {path}: {error}") from error
    digests = [line for line in lines if line]
    wrong = [i for i, line in enumerate(lines, 1) if line and not re.fullmatch(r"[0-9a-f]{64}", line)]
    if wrong:
        raise InvalidInput(f"{path} line {wrong[0]} is not a sha256 in hex; write the digest of a key, not the key")
    if not digests:
        raise InvalidInput(f"the keys file {path} holds no key, so nobody could call; add a sha256 or leave it out")
    return digests


class KeyCheck:
    """A route dependency that lets known keys pass, and everybody where `digests` is None."""

    def __init__(self, digests: list[str] | None) -> None:
        self._digests = digests

    async def __call__(self, request: Request) -> None:
        if self._digests is None:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.strip().encode()).hexdigest()
        # Every digest is compared, so that time tells nothing of which one was near.
        known = sum(hmac.compare_digest(digest, each) for each in self._digests)
        if scheme.lower() != "bearer" or not known:
            raise ServiceProblem(
                401,
                "unauthorized",
                "this teacher needs a key it knows; send it as 'Authorization: Bearer KEY'",
                headers={"WWW-Authenticate": "Bearer"},
            )
