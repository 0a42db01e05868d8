"""Which coordinator is meant, and with which key, where that is not said."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx2

from tutelage_client.client import read_key
from tutelage_client.errors import InvalidInput

DEFAULT_URL = "http://127.0.0.1:8400"
STACK = Path("tutelage-data/stack.json")


def coordinator_url(given: str | None = None) -> str:
    """`given`, else the environment, else the stack that was started in this folder, else the usual port.

    Raises:
        InvalidInput: it is no address.
    """
    return checked(given or os.environ.get("TUTELAGE_COORDINATOR") or _stack_url() or DEFAULT_URL)


def key_file(given: Path | None = None) -> Path | None:
    """`given`, else the environment. A key itself is never an argument: a list of processes would show it."""
    found = given or os.environ.get("TUTELAGE_KEY_FILE")
    return Path(found) if found else None


def bearer_key(given: Path | None = None) -> str | None:
    """The key in that file; None where there is none.

    Raises:
        InvalidInput: the file cannot be read or holds something else than one key.
    """
    path = key_file(given)
    return read_key(path) if path else None


def checked(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        InvalidInput: it is not one.
    """
    try:
        httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise InvalidInput(f"{url!r} is not an address: {error}") from error
    return url.rstrip("/")


def _stack_url() -> str | None:
    if not STACK.is_file():
        return None
    try:
        return json.loads(STACK.read_text())["coordinator"]["url"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        how = "give --coordinator, or set TUTELAGE_COORDINATOR"
        raise InvalidInput(f"{STACK} does not say where the coordinator is; {how}") from error
