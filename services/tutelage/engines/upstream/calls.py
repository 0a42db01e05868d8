"""The one place where calls to an upstream are limited, repeated, and given up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Self, TypeVar

from tutelage.engines.options import ChatOptions, UpstreamOptions
from tutelage.engines.upstream.breaker import CircuitBreaker
from tutelage.engines.upstream.failures import TryAgain, UpstreamAway, UpstreamFailed
from tutelage.engines.upstream.limit import AdaptiveLimit
from tutelage.engines.upstream.refusals import Refusals
from tutelage.engines.upstream.room import TokenRoom

Result = TypeVar("Result")
_ATTEMPTS_ON_BROKEN = 3  # a server error may belong to the request itself
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
_FAST_PAUSE_S = 1.0  # of the circuit where others can stand in: whoever tries again has pauses of its own


class Calls:
    """Calls to the upstream at `url`. A call that is cancelled, or past `deadline_s`, is cancelled at the upstream too.

    fail_fast: give up as soon as the circuit opens, as another upstream can stand in
    tokens_at_once: that are scored by all calls together, None for no bound
    Only what may be repeated goes through here: scoring, and text that nobody has seen yet.
    """

    def __init__(
        self,
        url: str,
        deadline_s: float,
        max_concurrency: int,
        fail_fast: bool = False,
        tokens_at_once: int | None = None,
    ) -> None:
        self.url = url
        self._deadline_s = deadline_s
        self._fail_fast = fail_fast
        self.limit = AdaptiveLimit(max_concurrency)
        self.room = TokenRoom(tokens_at_once)
        self.refusals = Refusals()
        self.breaker = CircuitBreaker(longest_pause_s=_FAST_PAUSE_S) if fail_fast else CircuitBreaker()

    @classmethod
    def of(cls, options: UpstreamOptions | ChatOptions, tokens_at_once: int | None = None) -> Self:
        url = options.upstream.rstrip("/")
        return cls(url, options.deadline_s, options.max_concurrency, options.fail_fast, tokens_at_once)

    async def make(self, attempt: Callable[[], Awaitable[Result]], tokens: int = 0) -> Result:
        """The result of the first attempt that succeeds; `attempt` raises `TryAgain` where another one may help.

        tokens: of the sequence that the call has scored
        Raises:
            UpstreamAway: none did before the deadline. UpstreamFailed: the upstream is broken on this request.
        """
        said = "no attempt could begin"
        until_s = asyncio.get_running_loop().time() + self._deadline_s
        failures, broken = 0, 0
        try:
            async with asyncio.timeout_at(until_s):
                while True:
                    try:
                        return await self._attempt(attempt, tokens)
                    except TryAgain as error:
                        said, failures = str(error), failures + 1
                        broken += error.trouble == "broken"
                        wait_s = max(error.at_least_s, _backoff_s(failures))
                    if broken >= _ATTEMPTS_ON_BROKEN:
                        raise UpstreamFailed(f"{self.url} failed {broken} times: {said}")
                    if self._fail_fast and self.breaker.is_open:
                        raise UpstreamAway(f"{self.url} failed again and again: {said}")
                    if asyncio.get_running_loop().time() + wait_s > until_s:
                        raise UpstreamAway(f"{self.url} took no work within {self._deadline_s:g} s: {said}")
                    await asyncio.sleep(wait_s)
        except TimeoutError as error:
            raise UpstreamAway(f"{self.url} did not answer within {self._deadline_s:g} s: {said}") from error

    async def _attempt(self, attempt: Callable[[], Awaitable[Result]], tokens: int) -> Result:
        async with self.breaker.turn(), self.room.taken(tokens), self.limit.slot() as ticket:
            try:
                result = await attempt()
            except TryAgain as error:
                if error.trouble == "overloaded":
                    self.breaker.answered()
                    self.limit.halve(ticket)
                    self.refusals.refused(str(error), error.at_least_s)
                else:
                    self.breaker.failed()
                raise
            except UpstreamFailed:
                self.breaker.answered()
                raise
            self.breaker.answered()
            self.refusals.taken()
            self.limit.grow()
            return result


async def all_of(calls: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of all calls, in order; the first error cancels the others and is raised as it is."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _backoff_s(failures: int) -> float:
    return random.uniform(0, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(failures, 16)))
