"""Rollouts that others pushed to a run, in the order of their arrival."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from tutelage.trainer.session import Session
from tutelage_client.wire import Rollout, RolloutLimits

POLL_S = 0.5


@dataclass
class Inbox:
    """after: cursor of those that were read; the ledger's follows once a step learned from them, so that what a pause
    cuts off is read again."""

    session: Session
    limits: RolloutLimits
    after: int = 0

    async def arrived(self, count: int) -> AsyncGenerator[list[Rollout]]:
        """So many that student and teachers can read, waited for. The coordinator refuses the others where it can:
        those that came before it knew the limits are left out here, and told of."""
        while count:
            page = await self.session.worker.pushed(self.session.run_id, after=self.after, limit=count)
            if not page.data:
                await asyncio.sleep(POLL_S)
            readable = [rollout for rollout in page.data if await self._reads(rollout)]
            count -= len(readable)
            yield readable
            if page.next is not None:
                self.after = int(page.next)

    async def _reads(self, rollout: Rollout) -> bool:
        for field, sentence in self.limits.flaws(rollout):
            told = f"the pushed rollout {rollout.id!r} is left out: {field}: {sentence}"
            await self.session.event("rollout", told, "warning", rollout_id=rollout.id, field=field)
            return False
        return True
