"""Which services are meant, and clients for a person who waits: they give up soon, except where a run is followed."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tutelage_client import connection
from tutelage_client.aio import Run, Tutelage
from tutelage_client.http import RetryPolicy

BRIEF = RetryPolicy(deadline_s=1.5, longest_wait_s=0.5)
PATIENT = RetryPolicy(deadline_s=60.0)  # a coordinator that restarts does not end the watching


def coordinator(args: argparse.Namespace, retry: RetryPolicy = BRIEF) -> Tutelage:
    return Tutelage(args.coordinator, key=connection.bearer_key(args.key_file), retry=retry)


@asynccontextmanager
async def the_run(args: argparse.Namespace, retry: RetryPolicy = BRIEF) -> AsyncIterator[Run]:
    """The run that the command names."""
    async with coordinator(args, retry) as client:
        yield client.run(args.run_id)


def coordinator_url(args: argparse.Namespace) -> str:
    return connection.coordinator_url(args.coordinator)
