"""Teachers of one name on one queue: how much of the speed of n teachers n of them reach.

Each is a process with the toy engine that waits a fixed time for every token, about as long as a model of 33 billion
parameters takes on one H100; two cores can do all else that they do. `stream`: so many questions that all are busy for
seconds. `step`: 64 questions at once, as a trainer asks in one step, a few times; then it matters that no teacher takes
what another could begin. `efficiency` is the rate over n times that of one teacher; `of_the_wait` is the time that the
tokens alone take n teachers, over the time that it took.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.measure import Cell, load_1min
from benchmarks.processes import printing, python, valkey
from benchmarks.queue.ours import Client
from tutelage.queue import open_queue

TOKENS = 256  # of a prompt, and of a completion
FORWARD = 2 * TOKENS - 1  # nothing needs the last token of a completion as input
TOKEN_S = 1 / 10_000
BATCH = 1024  # tokens of one engine call: a tenth of a second
STEP, STEPS = 64, 5
TEACHERS = (1, 2, 4, 8)


def replicas(*, short: bool) -> Iterator[Cell]:
    each, teachers = (10, TEACHERS[:2]) if short else (150, TEACHERS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(valkey(folder))
        alone: dict[str, float] = {}
        running = 0
        for count in teachers:
            starting = range(running, count)
            running = count
            for number in starting:
                stack.enter_context(printing(teacher(url), folder / f"teacher-{number}.log"))
            for how, questions, times in (("stream", count * each, 1), ("step", STEP, 1 if short else STEPS)):
                took_s = asyncio.run(asked(url, questions, times))
                alone.setdefault(how, took_s / questions)
                yield cell(how, count, questions, took_s, alone[how])


def teacher(url: str) -> list[str]:
    fake = json.dumps({"token_latency_s": TOKEN_S})
    argv = ("--engine", "fake", "--name", "toy", "--port", "0", "--redis-url", url, "--max-batch-tokens", str(BATCH))
    return python("tutelage.teacher", *argv, "--fake-options", fake)


async def asked(url: str, questions: int, times: int) -> float:
    """Seconds until all answers were read, the median of so many times."""
    queue = open_queue(url)
    client = Client(queue, completions=1, tokens=TOKENS)
    took_s: list[float] = []
    try:
        await client.ask(8)
        for _ in range(times):
            begun_s = time.perf_counter()
            await client.ask(questions)
            took_s.append(time.perf_counter() - begun_s)
    finally:
        await queue.close()
    return statistics.median(took_s)


def cell(how: str, teachers: int, questions: int, took_s: float, alone_s: float) -> Cell:
    """alone_s: of a question with one teacher"""
    return Cell(
        cell=f"{how}, {teachers} teachers" if teachers > 1 else f"{how}, one teacher",
        peer=None,
        ours=1e3 * took_s,
        equal=True,  # the client checks every answer
        counted={
            "teachers": teachers,
            "questions": questions,
            "tokens_per_s": questions * FORWARD / took_s,
            "efficiency": alone_s * questions / (teachers * took_s),
            "of_the_wait": questions * FORWARD * TOKEN_S / (teachers * took_s),
            "load_1min": load_1min(),
        },
    )
