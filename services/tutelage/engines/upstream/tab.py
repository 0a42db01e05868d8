"""What calls to an upstream that bills them cost, whatever becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from tutelage.engines.upstream.failures import BadAnswer, TryAgain, UpstreamFailed, UpstreamRefused
from tutelage_client.errors import BadScores
from tutelage_client.wire import Usage

Result = TypeVar("Result")


class Call:
    """One attempt. usage: what it costs, as far as is known by now"""

    def __init__(self, most: Usage) -> None:
        self.usage = most

    def answered(self, body: dict[str, Any]) -> None:
        """What the upstream says it cost; where it does not say, it stays at its most."""
        self.usage = _read(body.get("usage")) or self.usage


class Tab:
    """The attempts at one call, those included that were lost, cancelled, or answered with nothing of use."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._none_open = asyncio.Event()
        self._none_open.set()

    @property
    def usage(self) -> Usage:
        return sum((call.usage for call in self._calls), Usage())

    @contextmanager
    def call(self, most: Usage) -> Iterator[Call]:
        """An attempt, put down at its most until its end is known. One that ended in an error status costs nothing."""
        call = Call(most)
        self._calls.append(call)
        self._none_open.clear()
        try:
            yield call
        except UpstreamRefused:
            call.usage = Usage()
            raise
        except TryAgain as error:
            if error.trouble != "lost":
                call.usage = Usage()
            raise
        finally:
            self._none_open.set()

    async def no_more(self, task: asyncio.Task[Any]) -> None:
        """Let the attempt that is open end, as it is paid for in any case, and let `task` begin no other."""
        await self._none_open.wait()
        task.cancel()


async def all_paid(
    calls: Sequence[Callable[[Tab], Coroutine[Any, Any, Result]]],
) -> tuple[list[Result], Usage]:
    """The results of all calls, in order, and what all of their attempts cost. Each is given its tab.

    Raises:
        UpstreamFailed, BadAnswer: what the first one to fail said, with what all of them cost. None begins after it.
    """
    tabs = [Tab() for _ in calls]
    tasks = [asyncio.create_task(call(tab)) for call, tab in zip(calls, tabs, strict=True)]
    try:
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        await asyncio.gather(*(tab.no_more(task) for task, tab in zip(tasks, tabs, strict=True) if task in pending))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    usage = sum((tab.usage for tab in tabs), Usage())
    for error in (task.exception() for task in tasks if task in done):
        if isinstance(error, UpstreamFailed):
            error.usage = usage
        if isinstance(error, BadScores):
            raise BadAnswer(error, usage) from error
        if error is not None:
            raise error
    return [task.result() for task in tasks], usage


def _read(said: Any) -> Usage | None:
    """The usage of an answer, None where it makes no sense.

    Some servers leave what a model thinks out of `completion_tokens`, and count and bill it in `total_tokens`.
    """
    if not isinstance(said, dict):
        return None
    details = said.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    counts = [said.get("prompt_tokens"), said.get("completion_tokens") or 0, said.get("total_tokens") or 0, cached or 0]
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    prompt, written, total, cached = counts
    return Usage(
        forward_tokens=max(prompt - cached, 0),
        cached_tokens=min(cached, prompt),
        generated_tokens=max(written, total - prompt),
    )
