"""Requests that may come twice: what an `Idempotency-Key` has made is made once, and for one body."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tutelage.serving import ServiceProblem


def own(project: str, key: str | None) -> str | None:
    """A key as it is kept: the same one of another project is another key."""
    return None if key is None else f"{project}/{key}"


def digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def check_body(body: dict[str, Any], made: str, request_sha256: str | None) -> None:
    """Hold a body to the one with which the key made something, by its digest.

    Raises:
        ServiceProblem: 422 `idempotency_key_reused`.
    """
    if digest(body) != request_sha256:
        detail = f"this Idempotency-Key made {made} from another body; use a new key for a new request"
        raise ServiceProblem(422, "idempotency_key_reused", detail, field="Idempotency-Key")
