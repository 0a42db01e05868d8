"""What a teacher's HTTP door costs without a model: the toy engine beside a bare echo under the same server.

One client, one connection, one request after the other, in turns with an app that sends the same body back;
`added_p50_ms` is the difference of the medians. A request has one completion of 32 tokens.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from benchmarks.measure import Cell, interval, load_1min, paired
from benchmarks.processes import printing, python
from benchmarks.queue.ours import COMPLETION, PROMPT, asked
from tutelage_client.wire import decode_reply, encode_request
from tutelage_client.wire.codec import MEDIA_TYPE


def door(*, short: bool) -> list[Cell]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        teacher = python("tutelage.teacher", "--engine", "fake", "--name", "toy", "--port", "0")
        teacher_url = stack.enter_context(printing(teacher, folder / "teacher.log"))
        echo_url = stack.enter_context(printing(python("benchmarks.door.echo"), folder / "echo.log"))
        return [http(teacher_url, echo_url, repetitions=20 if short else 2000)]


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
