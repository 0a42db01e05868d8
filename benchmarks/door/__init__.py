"""What a teacher's two doors cost without a model: the toy engine over HTTP, beside a bare echo, and over the queue.

HTTP: one client, one connection, one request after the other, in turns with an app that sends the same body back under
the same server; `added_p50_ms` is the difference of the medians. Queue: one client puts jobs through a real Valkey and
reads and checks every answer. A job has one completion of 32 tokens, as a trainer's has, or eight behind one prompt;
`scores_per_s` counts completions from the first put to the last answer.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import uvicorn

from benchmarks.door.processes import printing, python, valkey
from benchmarks.measure import Cell, interval, load_1min, paired
from tutelage.queue import Job, Queue, open_queue
from tutelage_client.wire import ScoreReply, ScoreRequest, Signal, decode_reply, encode_request
from tutelage_client.wire.codec import MEDIA_TYPE

PROMPT = COMPLETION = VOCABULARY = 32


def door(*, short: bool) -> list[Cell]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis_url = stack.enter_context(valkey(folder))
        argv = ("--engine", "fake", "--name", "toy", "--port", "0", "--redis-url", redis_url)
        teacher = python("tutelage.teacher", *argv)
        teacher_url = stack.enter_context(printing(teacher, folder / "teacher.log"))
        echo_url = stack.enter_context(printing(python("benchmarks.door.echo"), folder / "echo.log"))
        over_http = http(teacher_url, echo_url, repetitions=20 if short else 2000)
        jobs = 100 if short else 10_000
        return [over_http, *(asyncio.run(queue(redis_url, jobs // size, size)) for size in (1, 8))]


def http(teacher_url: str, echo_url: str, repetitions: int) -> Cell:
    body = encode_request(asked(0, 1))
    with posting(teacher_url, "/v1/score", body) as ask, posting(echo_url, "/", body) as echo:
        mine, other = paired(ask, echo, repetitions)
        scores = decode_reply(ask()).scores[0]
    added_ms = statistics.median(mine) - statistics.median(other)
    ratios = [t / o for o, t in zip(mine, other, strict=True)]
    return Cell(
        cell="one score over HTTP",
        peer={"name": "bare ASGI echo", "version": f"uvicorn {uvicorn.__version__}", "settings": {}},
        ours=statistics.median(mine),
        theirs=statistics.median(other),
        ratio=statistics.median(ratios),
        ci=interval(ratios),
        equal=(scores.start, scores.rows) == (PROMPT, COMPLETION),
        counted={"added_p50_ms": added_ms, "repetitions": repetitions, "load_1min": load_1min()},
    )


async def queue(redis_url: str, jobs: int, size: int) -> Cell:
    """The rate of a client that has all its questions at once."""
    opened = open_queue(redis_url)
    try:
        await through(opened, f"warm-{size}", 10, size)
        begun_s, cpu_s = time.perf_counter(), time.process_time()
        replies = await through(opened, f"bench-{size}", jobs, size)
        took_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    finally:
        await opened.close()
    whole = all([block.rows for block in reply.scores] == [COMPLETION] * size for reply in replies)
    return Cell(
        cell=f"queue, jobs of {size}",
        peer=None,
        ours=1e3 * took_s / (jobs * size),
        equal=whole and len(replies) == jobs,
        counted={
            "scores_per_s": jobs * size / took_s,
            "client_cpu_ms": 1e3 * cpu_s / (jobs * size),
            "jobs": jobs,
            "load_1min": load_1min(),
        },
    )


async def through(opened: Queue, run_id: str, jobs: int, size: int) -> list[ScoreReply]:
    """Put so many jobs and take every answer."""
    asking = [
        Job(f"{run_id}-{i}", "toy", run_id, run_id, PROMPT + size * COMPLETION, encode_request(asked(i, size)))
        for i in range(jobs)
    ]
    putting = asyncio.create_task(opened.put(asking))
    replies: list[ScoreReply] = []
    cursor = "0"
    while len(replies) < jobs:
        answers, cursor = await opened.answers(run_id, after=cursor, wait_s=10.0)
        replies.extend(decode_reply(answer.payload or b"") for answer in answers)
    await putting
    return replies


def asked(number: int, size: int) -> ScoreRequest:
    ids = np.random.default_rng(number).integers(1, VOCABULARY, (size + 1, PROMPT))
    group = {"prompt_ids": ids[0], "completions": [{"token_ids": row} for row in ids[1:]]}
    return ScoreRequest.model_validate({"sequences": [group], "signals": [Signal.SAMPLED]})


@contextmanager
def posting(url: str, path: str, body: bytes) -> Iterator[Callable[[], bytes]]:
    """A call that posts the body over one connection and gives the answer's."""
    connection = HTTPConnection(urlsplit(url).netloc)
    headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE}

    def post() -> bytes:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return content

    try:
        yield post
    finally:
        connection.close()
