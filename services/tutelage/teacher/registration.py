"""A teacher tells the coordinator that it is there, again and again; when it stops, it counts as gone."""

from __future__ import annotations

import asyncio
import logging

from tutelage.teacher.scorer import Scorer
from tutelage.waiting import is_set_within
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse, ServiceUnreachable

log = logging.getLogger(__name__)


async def keep_registered(
    client: CoordinatorClient, scorer: Scorer, url: str, stopping: asyncio.Event, every_s: float = 5.0
) -> None:
    """Register while the teacher can work, or waits for its upstream's limits, until told to stop.

    A coordinator that is away is waited for.
    """
    said: str | None = None
    stop = False
    while not stop:
        if scorer.is_known:
            state = await _register(client, scorer, url)
            if state != said:
                log.info(state)
                said = state
        stop = await is_set_within(stopping, every_s)


async def _register(client: CoordinatorClient, scorer: Scorer, url: str) -> str:
    try:
        await client.register_teacher(scorer.name, url, scorer.info())
    except (ServiceUnreachable, ProblemResponse) as error:
        return f"not registered at the coordinator: {error}"
    return "registered at the coordinator"
