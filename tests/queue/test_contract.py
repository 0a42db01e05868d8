"""The promises of `tutelage.queue.base`, over every implementation."""

from __future__ import annotations

import asyncio
from typing import Any

from single import answer_one, put_one

from tutelage.queue import Answer, Delivery, Depth, Put, Queue

SHORT_S = 0.3  # a lease that runs out during a test
LATER_S = 10.0  # bounds a wait for that


async def take(queue: Queue, worker: str = "w1", count: int = 1, wait_s: float = 0) -> list[Delivery]:
    return await queue.lease("walker", worker, count=count, wait_s=wait_s)


async def take_one(queue: Queue, worker: str = "w1") -> Delivery:
    (delivery,) = await take(queue, worker)
    return delivery


async def read_all(queue: Queue, reply_to: str = "replies") -> list[Answer]:
    return (await queue.answers(reply_to, after="0", wait_s=0))[0]


async def buried(queue: Queue) -> list[tuple[str, int, str, list[str]]]:
    """The dead letters of the run, each delivery in words."""
    letters = await queue.dead_letters("walker")
    assert {letter.run_id for letter in letters} <= {"run"}
    return [
        (each.job_id, each.attempts, each.reason, [f"{f.worker}: {f.reason}" for f in each.history]) for each in letters
    ]


async def test_a_job_comes_out_as_it_went_in(queue: Queue, ask: Any) -> None:
    job = ask("a", b"\x00\xff\n{}", traceparent="00-ab-cd-01")
    assert await put_one(queue, job) is Put.ADDED
    delivery = await take_one(queue)
    assert (delivery.job, delivery.worker, delivery.attempt) == (job, "w1", 1)
    assert await take(queue) == []


async def test_a_job_is_added_once(queue: Queue, ask: Any) -> None:
    puts = [await put_one(queue, ask("a")) for _ in range(3)]
    assert puts == [Put.ADDED, Put.QUEUED, Put.QUEUED]
    delivery = await take_one(queue)
    assert await put_one(queue, ask("a")) is Put.QUEUED
    assert await take(queue) == []
    assert await answer_one(queue, delivery, b"yes")
    assert await put_one(queue, ask("a")) is Put.ANSWERED


async def test_jobs_that_are_put_together_are_each_told_what_became_of_them(bench: Any, ask: Any) -> None:
    queue = bench.open(max_deliveries=1)
    await queue.put([ask("answered"), ask("dead"), ask("queued")])
    answered, dead = await take(queue, count=2)
    assert await queue.answer([(answered, b"yes")]) == [True]
    assert await queue.fail(dead, "no")
    again = [ask(name) for name in ("new", "answered", "dead", "queued", "new")]
    assert await queue.put(again) == [Put.ADDED, Put.ANSWERED, Put.DEAD, Put.QUEUED, Put.QUEUED]
    assert [d.job.id for d in await take(queue, count=9)] == ["queued", "new"]
    assert await queue.put([]) == []
    assert await queue.answer([]) == []


async def test_a_lost_lease_among_answers_does_not_touch_the_others(queue: Queue, ask: Any) -> None:
    await queue.put([ask("a"), ask("b"), ask("c")])
    a, b, c = await take(queue, count=3)
    await queue.release([b])
    assert await queue.answer([(a, b"A"), (b, b"B"), (c, b"C" * 9000)]) == [True, False, True]
    assert await read_all(queue) == [Answer("a", b"A"), Answer("c", b"C" * 9000)]
    assert [d.job.id for d in await take(queue, count=3)] == ["b"]


async def test_workers_that_asked_lately_share_what_waits_evenly(bench: Any, ask: Any) -> None:
    queue = bench.open(lease_s=SHORT_S)
    for worker in ("w1", "w2", "w3"):
        assert await take(queue, worker, count=9) == []
    await queue.put([ask(f"job-{i}") for i in range(9)])
    assert [len(await take(queue, worker, count=9)) for worker in ("w1", "w2", "w3", "w1")] == [3, 2, 2, 1]
    await queue.put([ask(f"more-{i}") for i in range(3)])
    await bench.pass_time(queue, 2 * SHORT_S)
    assert len(await take(queue, "w1", count=99)) == 12  # the others asked long ago, and their leases are over


async def test_many_jobs_at_once_keep_their_order_and_their_bodies(queue: Queue, ask: Any) -> None:
    bodies = {f"job-{i}": bytes([i % 251]) * (1 + 17 * i) for i in range(600)}  # inline and beside the stream
    assert set(await queue.put([ask(name, body) for name, body in bodies.items()])) == {Put.ADDED}
    deliveries = await take(queue, count=600)
    assert {d.job.id: d.job.payload for d in deliveries} == bodies
    assert all(await queue.answer([(d, d.job.payload[::-1] + b"!") for d in deliveries]))
    assert await queue.fetch("job-599") == Answer("job-599", bodies["job-599"][::-1] + b"!")


async def test_jobs_are_leased_in_order_and_each_queue_has_its_own(queue: Queue, ask: Any) -> None:
    for job_id in "abc":
        await put_one(queue, ask(job_id))
    await put_one(queue, ask("other", queue="runner"))
    assert [d.job.id for d in await take(queue, count=2)] == ["a", "b"]
    assert [d.job.id for d in await take(queue, count=2)] == ["c"]
    assert [d.job.id for d in await queue.lease("runner", "w", count=5, wait_s=0)] == ["other"]


async def test_an_answer_is_stored_and_announced(queue: Queue, ask: Any) -> None:
    await put_one(queue, ask("a"))
    assert await queue.fetch("a") is None
    assert await answer_one(queue, await take_one(queue), b"scores")
    assert await queue.fetch("a") == Answer("a", b"scores")
    assert await read_all(queue) == [Answer("a", b"scores")]
    assert await queue.depth("walker") == Depth(0, 0, 0, None)


async def test_an_empty_answer_is_an_answer(queue: Queue, ask: Any) -> None:
    await put_one(queue, ask("a"))
    await answer_one(queue, await take_one(queue), b"")
    assert await queue.fetch("a") == Answer("a", b"")


async def test_a_second_answer_of_one_delivery_changes_nothing(queue: Queue, ask: Any) -> None:
    await put_one(queue, ask("a"))
    delivery = await take_one(queue)
    assert await answer_one(queue, delivery, b"first")
    assert not await answer_one(queue, delivery, b"second")
    assert not await queue.fail(delivery, "late")
    assert await queue.renew([delivery]) == [delivery]
    assert await read_all(queue) == [Answer("a", b"first")]


async def test_asking_again_announces_the_stored_answer_to_whoever_asks_now(queue: Queue, ask: Any) -> None:
    await put_one(queue, ask("a"))
    await answer_one(queue, await take_one(queue), b"scores")
    assert await put_one(queue, ask("a", reply_to="epoch-2")) is Put.ANSWERED
    assert await read_all(queue, "epoch-2") == [Answer("a", b"scores")]
    assert await take(queue) == []


async def test_everybody_who_asked_while_it_was_queued_is_told(queue: Queue, ask: Any) -> None:
    await put_one(queue, ask("a"))
    await put_one(queue, ask("a", reply_to="epoch-2"))
    delivery = await take_one(queue)
    await put_one(queue, ask("a", reply_to="epoch-3"))
    await answer_one(queue, delivery, b"scores")
    for reply_to in ("replies", "epoch-2", "epoch-3"):
        assert await read_all(queue, reply_to) == [Answer("a", b"scores")]


async def test_an_expired_lease_is_delivered_again_as_attempt_two(bench: Any, ask: Any) -> None:
    queue = bench.open(lease_s=SHORT_S)
    await put_one(queue, ask("a"))
    await take_one(queue, "w1")
    (again,) = await bench.lease_later(queue, "w2", within_s=LATER_S)
    assert (again.job.id, again.worker, again.attempt) == ("a", "w2", 2)


async def test_a_worker_that_takes_its_own_expired_lease_holds_only_the_newer_one(bench: Any, ask: Any) -> None:
    queue = bench.open(lease_s=SHORT_S)
    await put_one(queue, ask("a"))
    old = await take_one(queue)
    (new,) = await bench.lease_later(queue, "w1", within_s=LATER_S)
    assert new.attempt == 2
    assert not await answer_one(queue, old, b"old")
    assert await answer_one(queue, new, b"new")


async def test_a_zombie_cannot_answer_fail_renew_or_release_what_another_took_over(bench: Any, ask: Any) -> None:
    zombies = bench.open(lease_s=SHORT_S)
    await put_one(zombies, ask("a"))
    zombie = await take_one(zombies, "zombie")
    (owner,) = await bench.lease_later(zombies, "owner", within_s=LATER_S)
    queue = bench.open(lease_s=30)
    assert not await answer_one(queue, zombie, b"stale")
    assert not await queue.fail(zombie, "stale", retry=False)
    assert await queue.renew([zombie]) == [zombie]
    await queue.release([zombie])
    depth = await queue.depth("walker")
    assert (depth.waiting, depth.leased, depth.dead) == (0, 1, 0)
    assert await queue.fetch("a") is None
    assert await answer_one(queue, owner, b"fresh")
    assert await read_all(queue) == [Answer("a", b"fresh")]


async def test_a_late_answer_counts_while_nobody_else_has_the_job(bench: Any, ask: Any) -> None:
    queue = bench.open(lease_s=SHORT_S)
    await put_one(queue, ask("a"))
    late = await take_one(queue)
    await bench.pass_time(queue, SHORT_S * 2)
    assert await queue.renew([late]) == []
    await bench.pass_time(queue, SHORT_S * 2)
    assert await answer_one(queue, late, b"late")


async def test_renewal_keeps_a_lease_beyond_its_length(bench: Any, ask: Any) -> None:
    queue = bench.open(lease_s=1.5)
    await put_one(queue, ask("a"))
    mine = await take_one(queue, "mine")
    for _ in range(10):
        assert await queue.renew([mine]) == []
        assert await bench.lease_later(queue, "other", within_s=0.25) == []
    assert await answer_one(queue, mine, b"scores")


async def test_renewal_tells_the_lost_from_the_kept(queue: Queue, ask: Any) -> None:
    for job_id in "abc":
        await put_one(queue, ask(job_id))
    a, b = await take(queue, "w1", count=2)
    c = await take_one(queue, "w2")
    await answer_one(queue, b, b"done")
    assert await queue.renew([a, b, c]) == [b]


async def test_a_failed_job_is_retried_until_its_last_delivery(queue: Queue, ask: Any) -> None:
    await put_one(queue, ask("a"))
    for attempt in (1, 2, 3):
        delivery = await take_one(queue)
        assert delivery.attempt == attempt
        assert await queue.fail(delivery, f"reason {attempt}")
    assert await take(queue) == []
    assert await buried(queue) == [("a", 3, "reason 3", ["w1: reason 1", "w1: reason 2", "w1: reason 3"])]
    assert await read_all(queue) == [Answer("a", None, "reason 3")]
    assert await queue.fetch("a") == Answer("a", None, "reason 3")
    assert await queue.depth("walker") == Depth(0, 0, 1, None, redelivered=2, buried=1)
    assert await put_one(queue, ask("a")) is Put.DEAD


async def test_answers_that_took_no_effect_and_jobs_that_were_given_up_are_counted(bench: Any, ask: Any) -> None:
    """A dead letter that is discarded was given up all the same."""
    queue = bench.open(lease_s=SHORT_S)
    await put_one(queue, ask("a"))
    slow = await take_one(queue, "slow")
    (quick,) = await bench.lease_later(queue, "quick", within_s=LATER_S)
    assert not await answer_one(queue, slow, b"late")
    assert await answer_one(queue, quick, b"scores")
    assert not await answer_one(queue, quick, b"scores, as its first answer was lost")
    await put_one(queue, ask("b"))
    await queue.fail(await take_one(queue), "no", retry=False)
    await queue.discard("walker", "b")
    assert await queue.depth("walker") == Depth(0, 0, 0, None, redelivered=1, buried=1, duplicates=2)


async def test_a_job_that_must_not_be_retried_dies_at_once(queue: Queue, ask: Any) -> None:
    await put_one(queue, ask("a"))
    await queue.fail(await take_one(queue), "too long\nfor this model", retry=False)
    assert await buried(queue) == [("a", 1, "too long\nfor this model", ["w1: too long for this model"])]


async def test_a_job_that_kills_its_workers_dies_and_others_flow(bench: Any, ask: Any) -> None:
    queue = bench.open(lease_s=SHORT_S, max_deliveries=2)
    await put_one(queue, ask("poison"))
    await take_one(queue, "w1")
    await bench.lease_later(queue, "w2", within_s=LATER_S)
    reader = asyncio.create_task(queue.answers("replies", after="0", wait_s=LATER_S))
    await bench.lease_later(queue, "w3", within_s=SHORT_S * 3)
    answers, _ = await reader
    reason = "worker w2 let its lease run out"
    assert answers == [Answer("poison", None, reason)]
    assert await buried(queue) == [("poison", 2, reason, ["w1: let its lease run out", "w2: let its lease run out"])]
    await put_one(queue, ask("b"))
    assert (await take_one(queue)).job.id == "b"


async def test_a_replayed_dead_letter_starts_again(queue: Queue, ask: Any) -> None:
    await put_one(queue, ask("a"))
    await queue.fail(await take_one(queue), "no", retry=False)
    await put_one(queue, ask("a", reply_to="epoch-2"))
    assert not await queue.replay("runner", "a")
    assert not await queue.replay("walker", "b")
    assert await queue.replay("walker", "a")
    assert not await queue.replay("walker", "a")
    assert await queue.dead_letters("walker") == []
    assert await read_all(queue) == []
    delivery = await take_one(queue)
    assert (delivery.job, delivery.attempt) == (ask("a"), 1)
    await answer_one(queue, delivery, b"scores")
    assert await read_all(queue, "epoch-2") == [Answer("a", b"scores")]


async def test_a_discarded_dead_letter_is_forgotten_and_may_be_asked_anew(queue: Queue, ask: Any) -> None:
    await queue.put([ask("a", b"x" * 9000), ask("b")])
    for delivery in await take(queue, count=2):
        await queue.fail(delivery, "no", retry=False)
    assert not await queue.discard("other", "a")
    assert await queue.discard("walker", "a")
    assert not await queue.discard("walker", "a")
    assert not await queue.replay("walker", "a")
    assert [letter[0] for letter in await buried(queue)] == ["b"]
    assert await queue.fetch("a") is None
    assert await put_one(queue, ask("a", b"x" * 9000)) is Put.ADDED
    assert not await queue.discard("walker", "a")
    assert (await take_one(queue)).job.payload == b"x" * 9000


async def test_every_failed_delivery_is_dated(bench: Any, ask: Any) -> None:
    queue = bench.open(max_deliveries=2)
    await put_one(queue, ask("a"))
    await queue.fail(await take_one(queue), "first")
    await bench.pass_time(queue, SHORT_S)
    await queue.fail(await take_one(queue), "second")
    (letter,) = await queue.dead_letters("walker")
    first, second = letter.history
    assert SHORT_S * 0.9 <= second.at_s - first.at_s < LATER_S


async def test_cancel_forgets_waiting_and_leased_jobs_of_one_run(queue: Queue, ask: Any) -> None:
    for job_id in "abc":
        await put_one(queue, ask(job_id))
    await put_one(queue, ask("kept", run_id="other"))
    held = await take_one(queue)
    assert await queue.cancel("run") == 3
    assert await queue.cancel("run") == 0
    depth = await queue.depth("walker")
    assert (depth.waiting, depth.leased) == (1, 0)
    assert not await answer_one(queue, held, b"late")
    assert await queue.renew([held]) == [held]
    assert [d.job.id for d in await take(queue, count=9)] == ["kept"]
    assert await read_all(queue) == []


async def test_a_cancelled_job_can_be_asked_again(queue: Queue, ask: Any) -> None:
    await put_one(queue, ask("a"))
    await queue.cancel("run")
    assert await put_one(queue, ask("a")) is Put.ADDED
    assert [d.attempt for d in await take(queue, count=9)] == [1]


async def test_cancel_leaves_what_another_run_asks_too_and_what_has_ended(queue: Queue, ask: Any) -> None:
    await put_one(queue, ask("answered"))
    await answer_one(queue, await take_one(queue), b"scores")
    await put_one(queue, ask("dead"))
    await queue.fail(await take_one(queue), "no", retry=False)
    await put_one(queue, ask("shared"))
    await put_one(queue, ask("shared", run_id="other", reply_to="theirs"))
    assert await queue.cancel("run") == 1
    await answer_one(queue, await take_one(queue), b"for them")
    assert await read_all(queue, "theirs") == [Answer("shared", b"for them")]
    assert await read_all(queue) == [Answer("answered", b"scores"), Answer("dead", None, "no")]


async def test_release_does_not_count_as_a_delivery(queue: Queue, ask: Any) -> None:
    await put_one(queue, ask("a"))
    await queue.fail(await take_one(queue), "once")
    for _ in range(5):
        delivery = await take_one(queue)
        assert delivery.attempt == 2
        await queue.release([delivery])
        assert not await answer_one(queue, delivery, b"after release")
    depth = await queue.depth("walker")
    assert (depth.waiting, depth.leased) == (1, 0)


async def test_a_large_question_and_a_large_answer_survive(queue: Queue, ask: Any) -> None:
    question, answer = bytes(range(256)) * 400, bytes(reversed(range(256))) * 500
    await put_one(queue, ask("a", question))
    delivery = await take_one(queue)
    assert delivery.job.payload == question
    await answer_one(queue, delivery, answer)
    assert await read_all(queue) == [Answer("a", answer)]


async def test_the_cursor_passes_over_what_was_read(queue: Queue, ask: Any) -> None:
    for job_id in "abc":
        await put_one(queue, ask(job_id))
    a, b, c = await take(queue, count=3)
    await answer_one(queue, a, b"1")
    await answer_one(queue, b, b"2")
    first, cursor = await queue.answers("replies", after="0", wait_s=0)
    assert [x.job_id for x in first] == ["a", "b"]
    assert await queue.answers("replies", after=cursor, wait_s=0) == ([], cursor)
    await answer_one(queue, c, b"3")
    assert (await queue.answers("replies", after=cursor, wait_s=0))[0] == [Answer("c", b"3")]
    assert [x.job_id for x in await read_all(queue)] == ["a", "b", "c"]


async def test_more_answers_than_one_read_brings_come_with_the_next(queue: Queue, ask: Any) -> None:
    ids = [f"job-{i}" for i in range(150)]
    for job_id in ids:
        await put_one(queue, ask(job_id))
    for delivery in await take(queue, count=150):
        await answer_one(queue, delivery, delivery.job.id.encode())
    read: list[str] = []
    cursor = "0"
    while len(read) < len(ids):
        answers, cursor = await queue.answers("replies", after=cursor, wait_s=0)
        assert answers
        read += [answer.job_id for answer in answers]
    assert read == ids


async def test_two_workers_never_hold_one_job_at_once(queue: Queue, ask: Any) -> None:
    ids = {f"job-{i}" for i in range(60)}
    for job_id in ids:
        await put_one(queue, ask(job_id))
    taken: list[str] = []

    async def work(worker: str) -> None:
        while deliveries := await take(queue, worker, count=3):
            taken.extend(d.job.id for d in deliveries)

    await asyncio.gather(*(work(f"w{i}") for i in range(5)))
    assert sorted(taken) == sorted(ids)
    assert (await queue.depth("walker")).leased == 60


async def test_a_put_wakes_a_waiting_worker_and_an_answer_a_waiting_reader(queue: Queue, ask: Any) -> None:
    worker = asyncio.create_task(take(queue, wait_s=30))
    reader = asyncio.create_task(queue.answers("replies", after="0", wait_s=30))
    async with asyncio.timeout(20):
        await put_one(queue, ask("a"))
        (delivery,) = await worker
        await answer_one(queue, delivery, b"scores")
        answers, _ = await reader
    assert answers == [Answer("a", b"scores")]


async def test_of_many_waiting_workers_one_gets_the_job(queue: Queue, ask: Any) -> None:
    workers = [asyncio.create_task(take(queue, f"w{i}", wait_s=0.5)) for i in range(4)]
    await put_one(queue, ask("a"))
    held = [delivery for deliveries in await asyncio.gather(*workers) for delivery in deliveries]
    assert [delivery.job.id for delivery in held] == ["a"]


async def test_a_cancelled_wait_takes_nothing_with_it(queue: Queue, ask: Any) -> None:
    gone = asyncio.create_task(take(queue, "gone", wait_s=30))
    await take(queue, "w1", wait_s=0.1)
    gone.cancel()
    assert isinstance((await asyncio.gather(gone, return_exceptions=True))[0], asyncio.CancelledError)
    await put_one(queue, ask("a"))
    assert (await take_one(queue, "w1")).attempt == 1


async def test_given_back_and_replayed_jobs_wake_a_waiting_worker(queue: Queue, ask: Any) -> None:
    await put_one(queue, ask("a"))
    first = await take_one(queue)
    async with asyncio.timeout(20):
        worker = asyncio.create_task(take(queue, wait_s=30))
        await queue.release([first])
        (second,) = await worker
        worker = asyncio.create_task(take(queue, wait_s=30))
        await queue.fail(second, "again")
        (third,) = await worker
        await queue.fail(third, "no", retry=False)
        worker = asyncio.create_task(take(queue, wait_s=30))
        await queue.replay("walker", "a")
        await worker


async def test_depth_counts_waiting_leased_dead_and_the_age_of_the_oldest(bench: Any, ask: Any) -> None:
    queue = bench.open()
    assert await queue.depth("walker") == Depth(0, 0, 0, None)
    for job_id in "abcd":
        await put_one(queue, ask(job_id))
    a, b = await take(queue, count=2)
    await queue.fail(a, "no", retry=False)
    await take(queue, "w2")
    depth = await queue.depth("walker")
    assert (depth.waiting, depth.leased, depth.dead) == (1, 2, 1)
    assert depth.oldest_s is not None
    assert 0 <= depth.oldest_s < 60
    await answer_one(queue, b, b"yes")
    assert (await queue.depth("walker")).leased == 1


async def test_the_age_of_the_oldest_counts_from_its_put_through_every_delivery(bench: Any, ask: Any) -> None:
    queue = bench.open()
    await put_one(queue, ask("a"))
    await queue.fail(await take_one(queue), "again")
    held = await take_one(queue)
    await bench.pass_time(queue, 0.3)
    oldest_s = (await queue.depth("walker")).oldest_s
    assert oldest_s is not None
    assert oldest_s >= 0.29
    await answer_one(queue, held, b"yes")
    assert (await queue.depth("walker")).oldest_s is None


async def test_an_answer_expires_and_the_question_can_be_asked_again(bench: Any, ask: Any) -> None:
    queue = bench.open(answer_ttl_s=1.5)
    await put_one(queue, ask("a"))
    await answer_one(queue, await take_one(queue), b"scores")
    async with asyncio.timeout(LATER_S):
        while await queue.fetch("a"):
            await bench.pass_time(queue, 0.25)
    assert await put_one(queue, ask("a")) is Put.ADDED
