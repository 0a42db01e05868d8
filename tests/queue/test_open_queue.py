"""How a queue is opened, and what is said when it cannot be."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tutelage.queue import MemoryQueue, envelope, open_queue
from tutelage.queue.base import Job
from tutelage.queue.blobs import DamagedBody
from tutelage.standalone.stack import free_port
from tutelage_client.errors import InvalidInput, ServiceUnreachable


@pytest.mark.parametrize("url", ["amqp://host", "host:6379", "", "redis+unix:///run/redis"])
def test_another_scheme_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(InvalidInput, match="use redis://, rediss:// or valkey://"):
        open_queue(url)


def test_a_url_that_cannot_be_read_is_refused_in_one_sentence() -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        open_queue("redis://host:port/0")


def test_memory_yields_a_queue_of_its_own() -> None:
    first, second = open_queue("memory://"), open_queue("memory://")
    assert isinstance(first, MemoryQueue)
    assert first is not second


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
async def test_no_server_is_service_unreachable_without_the_password(scheme: str) -> None:
    queue = open_queue(f"{scheme}://user:secret@127.0.0.1:{free_port()}/0")
    with pytest.raises(ServiceUnreachable) as caught:
        await queue.lease("walker", "w", count=1, wait_s=0)
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" in caught.value.url
    await queue.close()


def test_the_memory_queue_needs_no_redis_library() -> None:
    code = "import sys, tutelage.queue as q; q.open_queue('memory://'); sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_envelope_of_another_schema_is_refused_with_the_remedy() -> None:
    body = envelope.pack(Job("a", "walker", "replies", "run", 7, b"question"))
    with pytest.raises(envelope.OtherSchema, match="schema 2, this worker reads 1; upgrade the worker"):
        envelope.unpack(body.replace(b'"schema": 1', b'"schema": 2'))


@pytest.mark.parametrize("body", [b"", b"\n", b"[]\nx", b'{"schema": 1}\nx', b"\xff\xfe\nx", b'{"id": "a"}\nx'])
def test_bytes_that_are_no_envelope_are_refused(body: bytes) -> None:
    with pytest.raises(DamagedBody, match="cannot be read"):
        envelope.unpack(body)
