"""How often a request is repeated, and how long one waits in between."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from time import monotonic


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits double from `first_wait_s` to `longest_wait_s`, each with full jitter; none begins past `deadline_s`."""

    deadline_s: float = 30.0
    first_wait_s: float = 0.1
    longest_wait_s: float = 5.0


@dataclass(slots=True)
class Attempts:
    """The repetitions of one request. Without a policy there are none."""

    policy: RetryPolicy | None
    began_s: float = field(default_factory=monotonic)
    made: int = 0

    async def again(self, at_least_s: float = 0.0) -> bool:
        """Wait for the next turn; False when there is none before the deadline."""
        if self.policy is None:
            return False
        ceiling_s = min(self.policy.first_wait_s * 2 ** min(self.made, 20), self.policy.longest_wait_s)
        wait_s = max(at_least_s, random.uniform(0, ceiling_s))
        if monotonic() + wait_s > self.began_s + self.policy.deadline_s:
            return False
        self.made += 1
        await asyncio.sleep(wait_s)
        return True
