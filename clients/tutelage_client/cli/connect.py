"""Which services and which key are meant, and clients for a person who waits.

They give up soon, except where a run is followed.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import httpx2

from tutelage_client.client import read_key
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput
from tutelage_client.http import RetryPolicy

DEFAULT_URL = "http://127.0.0.1:8400"
STACK = Path("tutelage-data/stack.json")
BRIEF = RetryPolicy(deadline_s=1.5, longest_wait_s=0.5)
PATIENT = RetryPolicy(deadline_s=60.0)  # a coordinator that restarts does not end the watching


def coordinator_url(args: argparse.Namespace) -> str:
    """The flag, else the environment, else the stack that was started in this folder, else the usual port."""
    return checked(args.coordinator or os.environ.get("TUTELAGE_COORDINATOR") or _stack_url() or DEFAULT_URL)


def coordinator(args: argparse.Namespace, retry: RetryPolicy = BRIEF) -> CoordinatorClient:
    return CoordinatorClient(coordinator_url(args), key=key(args), retry=retry)


def key_file(args: argparse.Namespace) -> Path | None:
    """The flag, else the environment. A key itself is never an argument: a list of processes would show it."""
    given = args.key_file or os.environ.get("TUTELAGE_KEY_FILE")
    return Path(given) if given else None


def key(args: argparse.Namespace) -> str | None:
    """The bearer key for the service that is asked; None where no file is given.

    Raises:
        InvalidInput: the file cannot be read or holds something else than one key.
    """
    path = key_file(args)
    return read_key(path) if path else None


def _stack_url() -> str | None:
    if not STACK.is_file():
        return None
    try:
        return json.loads(STACK.read_text())["coordinator"]["url"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidInput(f"{STACK} does not say where the coordinator is; give --coordinator") from error


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
