"""What waits or is leased is bounded: a job that finds no room is not added, and who asks again gets it in."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from single import answer_one, put_one

from tutelage.queue import Depth, Put, Queue, QueueLimits, open_queue
from tutelage.queue.base import TURN_S

BUDGETS: dict[str, dict[str, int]] = {
    "tokens": {"max_tokens": 21},  # of three jobs
    "bytes": {"max_bytes": 24},
}


@pytest.fixture(params=BUDGETS)
def narrow(bench: Any, request: pytest.FixtureRequest) -> Queue:
    """Room for three jobs with 7 tokens and 8 bytes each."""
    return bench.open(**BUDGETS[request.param])


async def take(queue: Queue, count: int = 1) -> Any:
    return await queue.lease("walker", "w", count=count, wait_s=0)


async def load(queue: Queue) -> tuple[int, int]:
    depth = await queue.depth("walker")
    return depth.tokens, depth.bytes


async def test_jobs_enter_in_order_until_there_is_no_room(narrow: Queue, ask: Any) -> None:
    puts = await narrow.put([ask(name) for name in "abcde"])
    assert puts == [Put.ADDED, Put.ADDED, Put.ADDED, Put.FULL, Put.FULL]
    assert await load(narrow) == (21, 24)
    assert [d.job.id for d in await take(narrow, 9)] == ["a", "b", "c"]
    assert await put_one(narrow, ask("d")) is Put.FULL, "what is worked on counts as well"
    assert await narrow.fetch("d") is None


async def test_room_is_where_a_job_has_ended_in_any_way(bench: Any, ask: Any) -> None:
    queue = bench.open(max_tokens=21)
    await queue.put([ask("answered"), ask("dead"), ask("cancelled", run_id="other")])
    answered, dead = await take(queue, 2)
    await answer_one(queue, answered, b"yes")
    assert await load(queue) == (14, 16)
    await queue.fail(dead, "no", retry=False)
    assert await load(queue) == (7, 8)
    await queue.cancel("other")
    assert await queue.depth("walker") == Depth(0, 0, 1, None, buried=1)
    assert await queue.put([ask(name) for name in "abcd"]) == [Put.ADDED] * 3 + [Put.FULL]


async def test_asking_again_of_a_job_that_is_in_counts_once_and_needs_no_room(narrow: Queue, ask: Any) -> None:
    jobs = [ask(name) for name in "abc"]
    assert await narrow.put(jobs) == [Put.ADDED] * 3
    for _ in range(3):
        assert await narrow.put([*jobs, ask("d")]) == [Put.QUEUED] * 3 + [Put.FULL]
    a, b, _ = await take(narrow, 3)
    await narrow.release([a])
    await narrow.fail(b, "again")
    assert await load(narrow) == (21, 24), "given back, failed and leased jobs are in it as before"
    await answer_one(narrow, (await take(narrow))[0], b"yes")
    assert await narrow.put([*jobs, ask("d"), ask("e")]) == [Put.ANSWERED, Put.QUEUED, Put.QUEUED, Put.ADDED, Put.FULL]


async def test_a_job_larger_than_the_budget_enters_alone(narrow: Queue, ask: Any) -> None:
    large = ask("large", b"8 bytes!" * 5, tokens=35)
    assert await put_one(narrow, ask("a")) is Put.ADDED
    assert await put_one(narrow, large) is Put.FULL
    await answer_one(narrow, (await take(narrow))[0], b"yes")
    assert await narrow.put([large, ask("b")]) == [Put.ADDED, Put.FULL]
    await answer_one(narrow, (await take(narrow))[0], b"yes")
    assert await put_one(narrow, ask("b")) is Put.ADDED


async def test_who_found_no_room_goes_before_the_jobs_that_other_runs_ask_later(narrow: Queue, ask: Any) -> None:
    """A large job would never enter if smaller ones took each place that becomes free."""
    await narrow.put([ask(name) for name in "abc"])
    large = ask("large", b"8 bytes!" * 2, tokens=14, run_id="patient")
    assert await put_one(narrow, large) is Put.FULL
    await answer_one(narrow, (await take(narrow))[0], b"yes")
    assert await put_one(narrow, ask("d")) is Put.FULL, "there is room, and it is kept"
    assert await put_one(narrow, large) is Put.FULL, "not yet enough of it"
    await answer_one(narrow, (await take(narrow))[0], b"yes")
    assert await put_one(narrow, large) is Put.ADDED
    await answer_one(narrow, (await take(narrow))[0], b"yes")
    assert await put_one(narrow, ask("d")) is Put.ADDED


async def test_a_run_that_got_something_in_does_not_go_first_with_the_rest(narrow: Queue, ask: Any) -> None:
    busy = [ask(f"busy-{i}") for i in range(9)]
    await narrow.put(busy[:2])
    assert await narrow.put(busy[2:]) == [Put.ADDED] + [Put.FULL] * 6
    await answer_one(narrow, (await take(narrow))[0], b"yes")
    assert await put_one(narrow, ask("theirs", run_id="other")) is Put.ADDED


async def test_a_run_that_does_not_ask_again_gives_up_its_turn(narrow: Queue, bench: Any, ask: Any) -> None:
    await narrow.put([ask(name) for name in "abc"])
    assert await put_one(narrow, ask("gone", run_id="dead")) is Put.FULL
    await answer_one(narrow, (await take(narrow))[0], b"yes")
    assert await put_one(narrow, ask("d")) is Put.FULL
    await bench.pass_time(narrow, TURN_S + 0.2)
    assert await put_one(narrow, ask("d")) is Put.ADDED


async def test_each_queue_has_room_of_its_own(narrow: Queue, ask: Any) -> None:
    jobs = [ask(f"{queue}-{i}", queue=queue) for i in range(4) for queue in ("walker", "runner")]
    assert await narrow.put(jobs) == [Put.ADDED] * 6 + [Put.FULL] * 2


async def test_a_replayed_dead_letter_counts_again(narrow: Queue, ask: Any) -> None:
    await narrow.put([ask(name) for name in "abc"])
    await narrow.fail((await take(narrow))[0], "no", retry=False)
    assert await put_one(narrow, ask("d")) is Put.ADDED
    assert await narrow.replay("walker", "a"), "someone decided it: it enters over the budget"
    assert await load(narrow) == (28, 32)
    assert await put_one(narrow, ask("e")) is Put.FULL
    for _ in range(2):
        await answer_one(narrow, (await take(narrow))[0], b"yes")
    assert await put_one(narrow, ask("e")) is Put.ADDED


@pytest.fixture
async def on_server(valkey: Any, raw: redis.Redis) -> AsyncIterator[Queue]:
    queue = open_queue(f"redis://127.0.0.1:{valkey.port}", QueueLimits(max_tokens=7 * 300))
    yield queue
    await queue.close()


async def test_what_is_refused_leaves_nothing_on_the_server(on_server: Queue, raw: redis.Redis, ask: Any) -> None:
    jobs = [ask(f"job-{i}", b"%05d" % i * 2000) for i in range(600)]
    assert (await on_server.put(jobs))[-1] is Put.FULL
    assert await on_server.put(jobs) == [Put.QUEUED] * 300 + [Put.FULL] * 300
    keys = Counter(key.decode().split(":")[1] for key in raw.scan_iter("tutelage:*", 1000))
    assert (keys["job"], keys["blob"]) == (300, 300)


async def test_a_flushed_server_has_room_again(on_server: Queue, raw: redis.Redis, ask: Any) -> None:
    jobs = [ask(f"job-{i}") for i in range(301)]
    assert (await on_server.put(jobs))[-1] is Put.FULL
    raw.flushall()
    assert await on_server.put(jobs) == [Put.ADDED] * 300 + [Put.FULL]


async def test_what_a_worker_of_an_older_version_did_not_count_costs_no_room_once_the_queue_is_empty(
    on_server: Queue, raw: redis.Redis, ask: Any
) -> None:
    await on_server.put([ask(f"job-{i}") for i in range(300)])
    raw.delete("tutelage:{walker}:live", "tutelage:{walker}:jobs")  # as if it had ended them all
    assert await put_one(on_server, ask("new")) is Put.ADDED
    assert await load(on_server) == (7, 8)
