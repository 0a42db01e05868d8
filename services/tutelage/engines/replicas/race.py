"""One question to one replica, and to a second one where the first fails or takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tutelage.engines.replicas.replica import Replica
from tutelage.engines.upstream.failures import UpstreamFailed, UpstreamRefused, spent_on
from tutelage_client.errors import BadScores

Result = TypeVar("Result")
Pick = Callable[[Sequence[Replica]], Replica | None]
_MOST_ASKED = 2
_ITS_OWN_FAULT = (401, 403, 404)  # refusals that say nothing of the request


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """winner: None where nobody answered; failed: who failed before that, with the reason, in order

    by_hedge: the winner was asked because another one took long
    """

    winner: Replica | None
    answer: Result | None
    failed: list[tuple[Replica, Exception]]
    by_hedge: bool = False


async def race(
    begin: Callable[[Replica], asyncio.Task[Result]], pick: Pick, pick_hedge: Pick, hedge_after_s: float | None
) -> Outcome[Result]:
    """The first answer; whoever is still at work then is cancelled. At most two replicas are asked.

    begin: ask a replica; pick: whom to ask, given who was asked
    A replica that is quarantined gives up what it has in hand, which counts as failed here.
    pick_hedge: as `pick`, when the first one has taken `hedge_after_s`
    Raises: what a replica raises where another one would do no better.
    """
    asked: list[Replica] = []
    working: dict[asyncio.Task[Result], Replica] = {}
    failed: list[tuple[Replica, Exception]] = []
    hedged_to: Replica | None = None

    def ask(choose: Pick) -> Replica | None:
        replica = choose(asked) if len(asked) < _MOST_ASKED else None
        if replica is not None:
            asked.append(replica)
            working[begin(replica)] = replica
        return replica

    ask(pick)
    patience_s = hedge_after_s
    try:
        while working:
            done, _ = await asyncio.wait(working, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            patience_s = None
            for task in done:
                replica = working.pop(task)
                error = UpstreamFailed(f"{replica.name}: {replica.reason}") if task.cancelled() else task.exception()
                if error is None:
                    return Outcome(replica, task.result(), failed, by_hedge=replica is hedged_to)
                failed.append((replica, _passing(error, failed)))
            if not done:
                hedged_to = ask(pick_hedge)
            elif not working:
                ask(pick)
        return Outcome(None, None, failed)
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


def _passing(error: BaseException, before: Sequence[tuple[Replica, Exception]]) -> Exception:
    """The error, if another replica may do better. Raises: it, if it may not, with the bill of what failed before."""
    if isinstance(error, UpstreamRefused) and error.status not in _ITS_OWN_FAULT:
        error.usage += spent_on(failure for _, failure in before)
        raise error
    if not isinstance(error, BadScores | UpstreamFailed):
        raise error
    return error
