"""A client that asks on command. It imports nothing of this project, so that peers in other environments can use it.

One JSON object a line: `{"questions": n, "at_once": false}` is answered with `{"ms": [..], "cpu_ms": x}`: the time of
each question, or with `at_once` of all of them together, and the client's own processor time. The end of the input
ends it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable

Ask = Callable[[int], Awaitable[None]]


async def obey(ask: Ask) -> None:
    """ask: puts so many questions at once, and has read and checked every answer when it returns"""
    for line in sys.stdin:
        command = json.loads(line)
        questions = command["questions"]
        begun_s = time.process_time()
        ms = [await _timed(ask, count) for count in ([questions] if command["at_once"] else [1] * questions)]
        print(json.dumps({"ms": ms, "cpu_ms": 1e3 * (time.process_time() - begun_s)}), flush=True)


async def _timed(ask: Ask, count: int) -> float:
    begun_ns = time.perf_counter_ns()
    await ask(count)
    return (time.perf_counter_ns() - begun_ns) / 1e6
